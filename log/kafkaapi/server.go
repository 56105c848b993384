package kafkaapi

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/remitlog/remit/log/embedded"
	"github.com/remitlog/remit/log/kafkaapi/groups"
)

// Server serves one log. Lock order: mu is held alone, as is admin, which is held over changes of topics.
type Server struct {
	o        Options
	cluster  string   // id of the log, made with it
	topicIDs [12]byte // what topic ids begin with
	versions map[int16]version
	producer atomic.Uint32 // ids given to producers in this start

	groups  *groups.Coordinator
	small   *semaphore.Weighted // bytes of requests
	large   *semaphore.Weighted // of those above LargeRequestBytes
	fetches *semaphore.Weighted // bytes of large answers to fetches
	crumbs  *semaphore.Weighted // of small ones
	admin   sync.Mutex

	ctx    context.Context // of all requests: ends when Close begins
	cancel context.CancelFunc
	mu     sync.Mutex
	listen map[net.Listener]struct{}
	conns  map[*conn]struct{}
	closed bool
	tasks  sync.WaitGroup
	said   atomic.Int64 // when it was last said that there are too many connections, ns
}

// clusterNote keeps the cluster id. It goes with the log: a copy has the same, a log made anew another.
const clusterNote = "kafkaapi/cluster"

// New makes a server of a log. Nothing listens yet.
func New(o Options) (*Server, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	s := &Server{o: o, listen: map[net.Listener]struct{}{}, conns: map[*conn]struct{}{},
		small: semaphore.NewWeighted(o.RequestMemoryMax / 2), large: semaphore.NewWeighted(o.RequestMemoryMax / 2),
		fetches: semaphore.NewWeighted(o.FetchMemoryMax / 2), crumbs: semaphore.NewWeighted(o.FetchMemoryMax / 2)}
	if err := s.loadCluster(); err != nil {
		return nil, err
	}
	s.versions = served()
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, s.openGroups()
}

// memory is where a request of n bytes takes its room.
func (s *Server) memory(n int64) *semaphore.Weighted {
	if n > LargeRequestBytes {
		return s.large
	}
	return s.small
}

func (s *Server) loadCluster() error {
	notes, err := s.o.Log.Notes(clusterNote)
	if err != nil {
		return fmt.Errorf("kafkaapi: %w", err)
	}
	var id []byte
	if len(notes) > 0 {
		id = notes[0].Value
	} else {
		id = make([]byte, 16)
		_, _ = rand.Read(id) // it never fails
		ctx, cancel := beginContext()
		defer cancel()
		if err := s.o.Log.PutNotes(ctx, embedded.Note{Key: clusterNote, Value: id}); err != nil {
			return fmt.Errorf("kafkaapi: %w", err)
		}
	}
	if len(id) != 16 {
		return fmt.Errorf("kafkaapi: the note %s has %d bytes, not 16; a newer version wrote it", clusterNote, len(id))
	}
	s.cluster = base64.RawURLEncoding.EncodeToString(id)
	copy(s.topicIDs[:], id)
	return nil
}

// ClusterID returns what clients know the log by.
func (s *Server) ClusterID() string { return s.cluster }

// ErrServerClosed is what Serve returns after Close.
var ErrServerClosed = errors.New("kafkaapi: closed")

// Serve answers on a listener until Close, or until the listener fails. It closes it.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	if !s.track(l) {
		return ErrServerClosed
	}
	for {
		nc, err := l.Accept()
		if s.ctx.Err() != nil {
			return ErrServerClosed
		}
		if temporary(err) {
			time.Sleep(acceptPause) // out of file descriptors: there is nothing to wait for
			continue
		}
		if err != nil {
			return fmt.Errorf("kafkaapi: %w", err)
		}
		s.open(nc)
	}
}

// acceptPause is how long nothing is accepted after the machine could not.
const acceptPause = 20 * time.Millisecond

func temporary(err error) bool {
	var t interface{ Temporary() bool }
	return errors.As(err, &t) && t.Temporary()
}

func (s *Server) track(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.listen[l] = struct{}{}
	return true
}

// open takes a connection, or closes it if there are too many.
func (s *Server) open(nc net.Conn) {
	c := newConn(s, nc)
	s.mu.Lock()
	n := len(s.conns)
	taken := !s.closed && n < s.o.ConnectionsMax
	if taken {
		s.conns[c] = struct{}{}
		s.tasks.Add(1)
	}
	s.mu.Unlock()
	if !taken {
		_ = nc.Close()
		s.tooMany(nc)
		return
	}
	s.watchConnections(n + 1)
	go func() {
		defer s.tasks.Done()
		c.serve()
		s.mu.Lock()
		delete(s.conns, c)
		n := len(s.conns)
		s.mu.Unlock()
		s.watchConnections(n)
	}()
}

func (s *Server) watchConnections(n int) {
	if f := s.o.Listener.Connections; f != nil {
		f(n)
	}
}

// tooMany says so at most once a second.
func (s *Server) tooMany(nc net.Conn) {
	err := fmt.Errorf("kafkaapi: %d connections, the most there may be; close some", s.o.ConnectionsMax)
	if f := s.o.Listener.Closed; f != nil {
		f(err)
	}
	now, last := time.Now().UnixNano(), s.said.Load()
	if now-last > int64(time.Second) && s.said.CompareAndSwap(last, now) {
		s.o.Logger.Warn("kafka: connection refused", "client", nc.RemoteAddr().String(), "error", err)
	}
}

// Close stops listening, answers the requests that have begun, until ctx ends, and closes all connections. It is called BEFORE the log
// is closed.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	s.cancel()
	for l := range s.listen {
		_ = l.Close()
	}
	for c := range s.conns {
		c.drain()
	}
	s.mu.Unlock()
	done := make(chan struct{})
	go func() {
		s.tasks.Wait()
		close(done)
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = ctx.Err()
		s.mu.Lock()
		for c := range s.conns {
			_ = c.nc.Close()
		}
		s.mu.Unlock()
	}
	return errors.Join(err, s.groups.Close())
}
