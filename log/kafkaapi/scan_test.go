package kafkaapi

import (
	"bytes"
	"context"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"net"
	"reflect"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
)

// fill makes a request of anything, tags included.
func fill(rng *rand.Rand, v reflect.Value) {
	if tags, ok := v.Addr().Interface().(*kmsg.Tags); ok {
		for n := rng.IntN(3); n > 0; n-- {
			tags.Set(uint32(100+n), make([]byte, rng.IntN(300)))
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).Name != "Version" && v.Type().Field(i).Name != "ReplicaState" {
				fill(rng, v.Field(i))
			}
		}
	case reflect.Slice:
		n := rng.IntN(4)
		if n == 3 {
			n = rng.IntN(200) // compact lengths of two bytes
		}
		if v.Type().Elem().Kind() != reflect.Uint8 && n > 3 {
			n = 3
		}
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(rng, v.Index(i))
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(rng, v.Index(i))
		}
	case reflect.Pointer:
		if rng.IntN(2) == 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(rng, v.Elem())
		}
	case reflect.String:
		v.SetString(strings.Repeat("s", rng.IntN(3)*rng.IntN(100)))
	case reflect.Bool:
		v.SetBool(rng.IntN(2) == 0)
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(rng.Int64())
	case reflect.Uint8:
		v.SetUint(uint64(rng.IntN(256)))
	}
}

// filled is a request of a kind and version.
func filled(rng *rand.Rand, key, version int16) kmsg.Request {
	q := kmsg.RequestForKey(key)
	q.SetVersion(version)
	fill(rng, reflect.ValueOf(q).Elem())
	q.SetVersion(version)
	return q
}

// What kmsg writes is what the shapes say, to the byte; and what is cut short is not.
func TestShapes(t *testing.T) {
	for key, v := range served() {
		sh := shapes[key]
		if sh == nil || sh.max < v.max {
			t.Fatalf("%s: there is no shape of version %d", kmsg.NameForKey(key), v.max)
		}
		for version := int16(0); version <= sh.max; version++ {
			rng := rand.New(rand.NewPCG(uint64(key), uint64(version)))
			for range 50 {
				body := filled(rng, key, version).AppendTo(nil)
				w := walk(body, sh, version)
				if w.err != nil || len(w.rest) > 0 {
					t.Fatalf("%s version %d: %v, %d bytes are left of %d", kmsg.NameForKey(key), version, w.err, len(w.rest), len(body))
				}
				if n := rng.IntN(len(body) + 1); n < len(body) {
					if w := walk(body[:n], sh, version); w.err == nil {
						t.Fatalf("%s version %d: %d of %d bytes pass", kmsg.NameForKey(key), version, n, len(body))
					}
				}
			}
		}
	}
}

func walk(body []byte, sh *shape, version int16) *scanner {
	w := &scanner{rest: body, version: version, flexible: version >= sh.flexible, tag1: sh.key == keyFetch}
	w.fields(sh.fields, true)
	return w
}

// Few bytes that claim many elements, or many tags, cost neither memory nor time.
func TestBombs(t *testing.T) {
	var many []byte // as many empty topics as fit
	many = append(many, make([]byte, 8)...)
	many = binary.BigEndian.AppendUint32(many, 1<<20)
	many = append(many, make([]byte, 6<<20)...)
	metadata := kmsg.NewPtrMetadataRequest()
	metadata.Version = 9
	tags := metadata.AppendTo(nil)
	tags = binary.AppendUvarint(tags[:len(tags)-1], math.MaxUint32)
	fetch := kmsg.NewPtrFetchRequest()
	fetch.Version = 12
	state := fetch.AppendTo(nil)
	state = append(state[:len(state)-1], 1, 1, 17, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0x0f)
	for name, c := range map[string]struct {
		key, version int16
		body         []byte
	}{
		"elements":    {keyProduce, 3, many},
		"tags":        {3, 9, tags},
		"broker tags": {keyFetch, 12, state},
		"length":      {3, 1, binary.BigEndian.AppendUint32(nil, math.MaxInt32)},
		"negative":    {3, 1, binary.BigEndian.AppendUint32(nil, 1<<31)},
	} {
		if err := scan(c.body, shapes[c.key], c.version); err == nil {
			t.Errorf("%s passes", name)
		}
	}
}

// fuzzServer has a topic with a record in it.
func fuzzServer(f *testing.F) *Server {
	f.Helper()
	l, err := embedded.Open(embedded.Options{Dir: "log", FS: vfs.NewMem(), RetentionEvery: -1})
	if err != nil {
		f.Fatal(err)
	}
	if err := l.CreateTopic(context.Background(), log.TopicConfig{Name: "t", Partitions: 2}); err != nil {
		f.Fatal(err)
	}
	if _, err := l.Append(context.Background(), log.Record{Partition: log.Partition{Topic: "t"}, Value: []byte("v")}); err != nil {
		f.Fatal(err)
	}
	s, err := New(Options{Log: l})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		_ = s.Close(context.Background())
		_ = l.Close()
	})
	return s
}

// makes are requests that leave something behind, or wait: they are decoded and not answered.
var makes = []int16{19, 37, 20, 32, 33, 44, keyJoinGroup, keySyncGroup, 8, 12, 13, 42, 47}

func allocated(s []metrics.Sample) uint64 {
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// Whatever the bytes: no panic, no allocation beyond RequestBytesMax, and what is answered can be encoded.
func FuzzRequest(f *testing.F) {
	rng := rand.New(rand.NewPCG(1, 2))
	for key := range shapes {
		for version := int16(0); version <= shapes[key].max; version++ {
			f.Add(kmsg.NewRequestFormatter(kmsg.FormatterClientID("c")).AppendRequest(nil, filled(rng, key, version), 7)[4:])
		}
	}
	f.Add(kmsg.NewRequestFormatter().AppendRequest(nil, filled(rng, 68, 1), 7)[4:]) // not served
	s := fuzzServer(f)
	ours, theirs := net.Pipe()
	f.Cleanup(func() { _, _ = ours.Close(), theirs.Close() })
	c := newConn(s, ours)
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) < requestLenMin || len(frame) > RequestBytesMax {
			return
		}
		began, before := time.Now(), allocated(sample)
		r := &request{key: int16(binary.BigEndian.Uint16(frame))}
		if r.parseHeader(bytes.Clone(frame)) != nil {
			return
		}
		q, answer, err := c.decode(r)
		if n := allocated(sample) - before; n > RequestBytesMax {
			t.Fatalf("%d bytes made it allocate %d", len(frame), n)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Fatalf("%d bytes took %s", len(frame), took)
		}
		if err != nil {
			return
		}
		if q != nil {
			answer = answerOf(t, s, c, r, q)
		}
		if answer != nil {
			answer.AppendTo(nil)
		}
	})
}

func answerOf(t *testing.T, s *Server, c *conn, r *request, q kmsg.Request) kmsg.Response {
	switch q := q.(type) {
	case *kmsg.ProduceRequest:
		q.Topics = q.Topics[:min(len(q.Topics), 1)]
		a, err := s.beginProduce(q).finish()
		if err != nil && q.Acks != acksNone {
			t.Fatal(err)
		}
		return a
	case *kmsg.FetchRequest:
		q.MaxWaitMillis = 0
	}
	for _, key := range makes {
		if key == r.key {
			return nil
		}
	}
	a := s.answer(c, r, q)
	if f, ok := a.(*fetched); ok {
		defer f.free()
	}
	return a
}
