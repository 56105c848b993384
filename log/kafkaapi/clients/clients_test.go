package clients_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/remitlog/remit/cmd/remit/torture"
)

const (
	partitions = 6
	keys       = 24
	// phase is how many records are produced at a time.
	phase = 960
	// patience is how long anything may take before it is said to hang.
	patience = 2 * time.Minute
	// Who is killed is soon taken for dead, and nobody else, however long the machine keeps it waiting: it would be no clean rebalance.
	killedSession, session = 6 * time.Second, 5 * time.Minute
)

func TestMain(m *testing.M) {
	if c := goClients[os.Getenv(verbOf)]; c != nil {
		if err := runClient(c, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	status := m.Run()
	if built != "" {
		_ = os.RemoveAll(built)
	}
	os.Exit(status)
}

var built string // the directory that remit made

// remit builds the program, once.
var remit = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "remit-clients-")
	if err != nil {
		return "", err
	}
	built = dir
	return torture.Build(filepath.Join(dir, "remit"))
})

// dev starts a server that ends with the test.
func dev(t *testing.T) *torture.Server {
	t.Helper()
	binary, err := remit()
	if err != nil {
		t.Fatal(err)
	}
	s, err := torture.Start(t.Context(), torture.Options{Binary: binary, Command: []string{"dev"}, Data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// admin returns an administrator's client.
func admin(t *testing.T, broker string) *kadm.Client {
	t.Helper()
	c, err := kgo.NewClient(kgo.SeedBrokers(broker))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return kadm.NewClient(c)
}

// TestClients: each client lists topics, produces, reads in a group of three of which one is killed midway and one leaves in order, resumes,
// and seeks to a time. No record is lost, none is doubled but those that the killed one read, and each partition is read in its order.
func TestClients(t *testing.T) {
	s := dev(t)
	t.Run("all", func(t *testing.T) {
		for _, c := range tools {
			t.Run(c.name, func(t *testing.T) {
				if why := c.absent(); why != "" {
					t.Skip(why)
				}
				t.Parallel()
				newScene(t, c, s.Kafka).play()
			})
		}
	})
}

// scene is what one client does.
type scene struct {
	t            *testing.T
	tool         tool
	broker       string
	topic, group string
	admin        *kadm.Client
	news         chan struct{} // of 1: somebody printed something
	members      []*member
	produced     map[string]bool
	sequence     map[string]int
	killed       *member
	second       time.Time // when the second phase began
}

// member is a process that reads.
type member struct {
	name  string
	cmd   *exec.Cmd
	errs  *bytes.Buffer
	ended chan struct{}

	mu   sync.Mutex
	read []record
}

func newScene(t *testing.T, c tool, broker string) *scene {
	name := strings.ReplaceAll(c.name, "-", "")
	return &scene{
		t: t, tool: c, broker: broker, topic: "topic-" + name, group: "group-" + name, admin: admin(t, broker),
		news: make(chan struct{}, 1), produced: map[string]bool{}, sequence: map[string]int{},
	}
}

func (s *scene) play() {
	s.create()
	s.produce("a", nil)
	s.second = time.Now().Add(time.Millisecond)
	for !time.Now().After(s.second) { // the records of the next phase have a later millisecond
	}
	first := s.start(killedSession)
	second, third := s.start(session), s.start(session)
	s.settled(3)

	s.produce("b", func() {
		s.wait("the first member reads what is produced", func() bool { return first.has("b-") })
		s.killed = first
		_ = first.cmd.Process.Kill()
		<-first.ended
	})
	s.consumed()

	if s.tool.drops {
		s.produce("c", nil)
		s.consumed()
		s.stop(second)
		s.produce("c", nil)
	} else {
		s.produce("c", func() {
			s.wait("the second member reads what is produced", func() bool { return second.has("c-") })
			s.stop(second)
		})
	}
	s.consumed()
	s.stop(third)

	s.produce("d", nil)
	fourth := s.start(session)
	s.consumed()
	s.stop(fourth)
	for _, r := range fourth.all() {
		if !strings.HasPrefix(r.value, "d-") {
			s.t.Fatalf("who resumes reads %+v again", r)
		}
	}
	s.audit()
	s.seek()
}

func (s *scene) create() {
	if s.tool.create != nil {
		run(s.t, s.tool.create(s.broker, s.topic, partitions), "")
	} else if _, err := s.admin.CreateTopic(s.t.Context(), partitions, 1, nil, s.topic); err != nil {
		s.t.Fatal(err)
	}
	if said := run(s.t, s.tool.list(s.broker), ""); !strings.Contains(said, s.topic) {
		s.t.Fatalf("%s is not in the list:\n%s", s.topic, said)
	}
}

// produce sends a phase; midway it waits until between has returned.
func (s *scene) produce(name string, between func()) {
	s.t.Helper()
	cmd := s.tool.produce(s.broker, s.topic)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	in, err := cmd.StdinPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*patience)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })()
	_, err = io.WriteString(in, s.more(name))
	if between != nil {
		between()
	}
	if err == nil {
		_, err = io.WriteString(in, s.more(name))
	}
	if err == nil {
		err = in.Close()
	}
	if ended := cmd.Wait(); err != nil || ended != nil {
		s.t.Fatalf("produce: %v, %v\n%s", err, ended, last(out.String()))
	}
}

// more returns half a phase, as a tool reads it.
func (s *scene) more(name string) string {
	var b strings.Builder
	for i := range phase / 2 {
		key := fmt.Sprintf("k%02d", i%keys)
		s.sequence[key]++
		value := fmt.Sprintf("%s-%s-%05d", name, key, s.sequence[key])
		s.produced[value] = true
		fmt.Fprintf(&b, "%s\t%s\n", key, value)
	}
	return b.String()
}

// start starts one more member.
func (s *scene) start(session time.Duration) *member {
	m := &member{name: fmt.Sprint("member ", len(s.members)+1), cmd: s.tool.consume(s.broker, s.group, s.topic, session), errs: &bytes.Buffer{}, ended: make(chan struct{})}
	m.cmd.Stderr = m.errs
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := m.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.members = append(s.members, m)
	s.t.Cleanup(func() {
		_ = m.cmd.Process.Kill()
		<-m.ended
	})
	read := s.tool.parse
	if read == nil {
		read = parse
	}
	go func() {
		defer close(m.ended)
		for in := bufio.NewReader(out); ; {
			line, err := in.ReadString('\n')
			if err != nil { // of what a killed one did not end is nothing known
				break
			}
			if r, ok := read(strings.TrimSuffix(line, "\n")); ok {
				m.mu.Lock()
				m.read = append(m.read, r)
				m.mu.Unlock()
			}
			select {
			case s.news <- struct{}{}:
			default:
			}
		}
		_ = m.cmd.Wait()
	}()
	return m
}

func (m *member) all() []record {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.read)
}

func (m *member) has(prefix string) bool {
	return slices.ContainsFunc(m.all(), func(r record) bool { return strings.HasPrefix(r.value, prefix) })
}

// stop asks a member to leave, and waits until it has.
func (s *scene) stop(m *member) {
	s.t.Helper()
	if err := m.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(m.name, err, m.errs)
	}
	select {
	case <-m.ended:
	case <-time.After(patience):
		s.t.Fatalf("%s does not end", m.name)
	}
}

// wait waits until something is so, which it looks at whenever a member has printed.
func (s *scene) wait(what string, is func() bool) {
	s.t.Helper()
	enough := time.After(patience)
	for !is() {
		select {
		case <-s.news:
		case <-enough:
			said := ""
			for _, m := range s.members {
				said += fmt.Sprintf("%s read %d, and said %s\n", m.name, len(m.all()), last(m.errs.String()))
			}
			s.t.Fatalf("after %s not: %s\n%s", patience, what, said)
		}
	}
}

// settled waits until the group is stable and all its members have partitions.
func (s *scene) settled(members int) {
	s.t.Helper()
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	enough := time.After(patience)
	for {
		described, err := s.admin.DescribeGroups(s.t.Context(), s.group)
		if err != nil {
			s.t.Fatal(err)
		}
		g := described[s.group]
		owners := 0
		for _, m := range g.Members {
			if a, ok := m.Assigned.AsConsumer(); ok && len(a.Topics) > 0 {
				owners++
			}
		}
		if g.State == "Stable" && owners == members {
			return
		}
		select {
		case <-look.C:
		case <-enough:
			for _, m := range s.members {
				s.t.Log(m.name, len(m.all()), last(m.errs.String()))
			}
			s.t.Fatalf("the group is %s, and %d members have partitions", g.State, owners)
		}
	}
}

// consumed waits until all that was produced was read.
func (s *scene) consumed() {
	s.t.Helper()
	var missing []string
	defer func() {
		if s.t.Failed() {
			s.t.Log("not read:", len(missing), missing[:min(len(missing), 10)])
		}
	}()
	s.wait("all is read", func() bool {
		read := map[string]bool{}
		for _, m := range s.members {
			for _, r := range m.all() {
				read[r.value] = true
			}
		}
		missing = nil
		for value := range s.produced {
			if !read[value] {
				missing = append(missing, value)
			}
		}
		return len(missing) == 0
	})
}

type place struct {
	partition int
	offset    int64
}

// audit holds what was read to what was produced.
func (s *scene) audit() {
	places := map[string]place{}
	readers := map[string][]*member{}
	for _, m := range s.members {
		next := map[int]int64{}
		for _, r := range m.all() {
			if !s.produced[r.value] {
				s.t.Errorf("%s read %+v, which nobody produced", m.name, r)
			}
			if at, ok := places[r.value]; ok && at != (place{r.partition, r.offset}) {
				s.t.Errorf("%s stands at %v and at %d/%d", r.value, at, r.partition, r.offset)
			}
			places[r.value] = place{r.partition, r.offset}
			if r.offset < next[r.partition] {
				s.t.Errorf("%s read %d/%d after %d", m.name, r.partition, r.offset, next[r.partition]-1)
			}
			next[r.partition] = r.offset + 1
			readers[r.value] = append(readers[r.value], m)
		}
	}
	doubled := 0
	for value, ms := range readers {
		if len(ms) > 1 && (len(ms) > 2 || !slices.Contains(ms, s.killed)) {
			doubled++
			if doubled < 5 {
				s.t.Errorf("%s at %v was read by %s and %s", value, places[value], ms[0].name, ms[1].name)
			}
		}
	}
	if doubled > 0 {
		s.t.Errorf("%d of %d records were doubled, of which none was read by the killed member", doubled, len(s.produced))
	}
	for value := range s.produced {
		if _, ok := readers[value]; !ok {
			s.t.Errorf("%s is lost", value)
		}
	}
	s.ordered(places)
}

// ordered: the records of a key lie in one partition, in the order in which they were produced.
func (s *scene) ordered(places map[string]place) {
	of := map[string][]string{}
	for value := range places {
		_, rest, _ := strings.Cut(value, "-")
		key, number, _ := strings.Cut(rest, "-")
		of[key] = append(of[key], number+" "+value)
	}
	for key, values := range of {
		slices.Sort(values)
		before := place{-1, -1}
		for _, v := range values {
			_, value, _ := strings.Cut(v, " ")
			at := places[value]
			if before.partition >= 0 && (at.partition != before.partition || at.offset <= before.offset) {
				s.t.Errorf("%s: %s stands at %v, behind %v", key, value, at, before)
			}
			before = at
		}
	}
}

// seek reads from the time on at which the second phase began: all of that, and nothing else.
func (s *scene) seek() {
	read := s.tool.parse
	if read == nil {
		read = parse
	}
	found := map[string]bool{}
	want := len(s.produced) - phase
	for line := range strings.Lines(run(s.t, s.tool.seek(s.t, s.broker, s.topic, s.second, want), "")) {
		r, ok := read(strings.TrimSuffix(line, "\n"))
		if !ok {
			continue
		}
		if strings.HasPrefix(r.value, "a-") {
			s.t.Fatalf("%+v is from before %s", r, s.second)
		}
		if found[r.value] {
			s.t.Fatalf("%+v twice", r)
		}
		found[r.value] = true
	}
	if len(found) != want {
		s.t.Errorf("%d records from %s on, want %d", len(found), s.second, want)
	}
}
