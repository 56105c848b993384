package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/remitlog/remit/cmd/remit/torture"
	"github.com/remitlog/remit/log"
)

// MessageOptions say how transactional messages are measured.
type MessageOptions struct {
	Dir      string // a directory of its own
	Server   *torture.Server
	Callers  int // at once; with Batch the batches
	InFlight int // messages of a batch that are not decided, at most
	Rate     float64
	Names    bool // messages by source and id, which are claimed, else by ids that the client makes
	Batch    bool // by NDJSON
	Keys     int  // routing keys
	Bytes    int  // of an event's data
	// CheckAfter is after how long a half message is asked about that nobody has decided.
	CheckAfter time.Duration
	Duration   time.Duration // of each side, over all rounds
	Rounds     int
	Say        func(format string, args ...any)
	// Begin and End are called around the load, for a profile.
	Begin, End func()
}

// atOnce is how many messages are under way at once.
func (o *MessageOptions) atOnce() int {
	if o.Batch {
		return o.Callers * o.InFlight
	}
	return o.Callers
}

// MessageReport is what came of it. A message is prepared, committed, and delivered in the append of its commit: two calls, or two
// lines of NDJSON.
type MessageReport struct {
	How      string  `json:"how"` // single or batch
	With     string  `json:"with"`
	Callers  int     `json:"callers"`
	InFlight int     `json:"inFlight,omitzero"`
	Rate     float64 `json:"rate"` // 0: closed load
	DataSize int     `json:"dataBytes"`
	Messages Figure  `json:"messages"`
	// Ceiling is a bare Pebble that commits the bytes of one message in as many steps, each with a sync, from as many callers.
	Ceiling Figure `json:"ceiling"`
	// Steps are the bytes that one message puts on the log, by what its caller waits for: the claim of its name, if it has one, its
	// half message, its decision with the delivery.
	Steps []int   `json:"bytesByStep"`
	Ratio float64 `json:"ratio"`
	// Checks is how many back-checks fell due and were asked while the load ran.
	Checks int64 `json:"checks"`
	Lag    Lag   `json:"lag"`
	// PeakBytes is the most memory that the server had resident; 0 where it is not known.
	PeakBytes int64 `json:"serverPeakBytes,omitzero"`
	// CPUMicros is the processor time that the server takes for one message, its views included; it hardly depends on what else runs.
	CPUMicros float64 `json:"serverCpuMicrosPerMessage,omitzero"`
}

// Messages measures transactional messages over HTTP, beside the bare commit of the bytes that one puts on the log.
func Messages(ctx context.Context, o MessageOptions) (report MessageReport, err error) {
	report = MessageReport{How: "single", With: "ids", Callers: o.Callers, Rate: o.Rate, DataSize: o.Bytes}
	if o.Names {
		report.With = "names"
	}
	if o.Batch {
		report.How, report.InFlight = "batch", o.InFlight
	}
	if report.Steps, err = stepsOf(ctx, &o); err != nil {
		return report, err
	}
	floor, err := openBare(filepath.Join(o.Dir, "bare"), report.Steps...)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, floor.Close()) }()
	producer, err := answerChecks()
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, producer.Close()) }()

	s := &sender{MessageOptions: o, data: filler(o.Bytes), run: strconv.FormatInt(time.Now().UnixNano(), 36)}
	if err := s.register(ctx, producer.url); err != nil {
		return report, err
	}
	watch := &lagWatch{host: o.Server.HTTP}
	ours, theirs := newRecorder(), newRecorder()
	each := o.Duration / time.Duration(o.Rounds)
	var busy time.Duration
	for round := range o.Rounds {
		before := o.Server.CPU()
		o.Begin()
		err := watch.during(ctx, func() error { return s.round(ctx, each, ours) })
		o.End()
		if err == nil {
			err = watch.catchUp(ctx) // and what the server still does does not slow the ceiling
		}
		busy += o.Server.CPU() - before
		if err == nil {
			err = load(ctx, min(o.atOnce(), ceilingCallersMax), newSchedule(each, 0), theirs, floor.commit)
		}
		if err != nil {
			return report, err
		}
		o.Say("round %d of %d: messages %.0f/s, bare Pebble %.0f/s", round+1, o.Rounds, ours.rounds[round], theirs.rounds[round])
	}
	report.Messages, report.Ceiling = ours.figure("messages"), theirs.figure("bare Pebble")
	report.Ratio = report.Messages.PerSecond / report.Ceiling.PerSecond
	report.Checks, report.Lag, report.PeakBytes = producer.checks.Load(), watch.lag, o.Server.PeakBytes()
	report.CPUMicros = float64(busy.Microseconds()) / float64(max(1, report.Messages.Count))
	return report, s.allThere(ctx, report.Messages.Count)
}

// What the bench calls its producer and its topic.
const (
	benchProducer = "bench"
	benchTopic    = "bench"
)

// checked is a producer that knows nothing of what it is asked about, and counts how often it is.
type checked struct {
	http.Server
	url    string
	checks atomic.Int64
}

func answerChecks() (*checked, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	c := &checked{url: "http://" + l.Addr().String()}
	c.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c.checks.Add(1)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"verdict":"unknown"}`)) // a server that is gone asks again
	})
	go func() { _ = c.Serve(l) }() // until it is closed
	return c, nil
}

// sender sends messages.
type sender struct {
	MessageOptions
	data []byte
	run  string // events of one run do not meet those of another
	n    atomic.Int64
}

// register makes the topic, and the producer with where it is asked.
func (s *sender) register(ctx context.Context, url string) error {
	c, err := dial(ctx, s.Server.HTTP)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.expect("PUT", "/v1/topics/"+benchTopic, []byte(`{}`), 200, 201); err != nil {
		return err
	}
	body := fmt.Sprintf(`{"check":{"url":%q,"firstAfter":"%dms"}}`, url, s.CheckAfter.Milliseconds())
	_, err = c.expect("PUT", "/v1/producers/"+benchProducer, []byte(body), 200, 201)
	return err
}

// allThere holds what was counted against what the topic has.
func (s *sender) allThere(ctx context.Context, count int64) error {
	c, err := dial(ctx, s.Server.HTTP)
	if err != nil {
		return err
	}
	defer c.Close()
	body, err := c.expect("GET", "/v1/topics/"+benchTopic, nil, 200)
	if err != nil {
		return err
	}
	var topic struct {
		Records int64 `json:"records"`
	}
	if err := json.Unmarshal(body, &topic); err != nil {
		return fmt.Errorf("GET /v1/topics/%s: %w", benchTopic, err)
	}
	if topic.Records != count {
		return fmt.Errorf("bench: %d messages were answered as delivered, and the topic has %d", count, topic.Records)
	}
	return nil
}

// appendEvent appends the next event, in CloudEvents' JSON format.
func (s *sender) appendEvent(b []byte) []byte {
	key := "customer-" + strconv.Itoa(rand.IntN(s.Keys))
	b = append(append(append(b, `{"specversion":"1.0","id":"`...), s.run...), '-')
	b = strconv.AppendInt(b, s.n.Add(1), 10)
	b = append(b, `","source":"/bench/orders","type":"com.example.order.placed.v1","datacontenttype":"application/json","partitionkey":"`...)
	b = append(b, key...)
	if !s.Names {
		b = append(append(b, `","remitid":"`...), log.NewID(time.Now(), key).String()...)
	}
	return append(appendData(append(b, `","data":`...), s.data), '}')
}

// appendData appends so many bytes of JSON that do not compress away.
func appendData(b, data []byte) []byte {
	const head, tail, digits = `{"note":"`, `"}`, "0123456789abcdef"
	b = append(b, head...)
	for _, c := range data[:max(0, len(data)-len(head)-len(tail))] {
		b = append(b, digits[c>>4])
	}
	return append(b, tail...)
}

func (s *sender) round(ctx context.Context, d time.Duration, r *recorder) error {
	if s.Batch {
		return s.batches(ctx, newSchedule(d, s.Rate), r)
	}
	callers := make([]*messageCaller, s.Callers)
	for i := range callers {
		c, err := dial(ctx, s.Server.HTTP)
		if err != nil {
			return fmt.Errorf("bench: %w", err)
		}
		defer c.Close()
		callers[i] = &messageCaller{conn: c}
	}
	return load(ctx, s.Callers, newSchedule(d, s.Rate), r, func(_ context.Context, caller int) error {
		return callers[caller].send(s)
	})
}

// messageCaller sends one message after the other.
type messageCaller struct {
	*conn
	event, path []byte
}

// The paths of half messages.
const (
	preparePath = "/v1/topics/" + benchTopic + "/messages?producer=" + benchProducer
	batchPath   = "/v1/topics/" + benchTopic + "/messages:batch?producer=" + benchProducer
)

// delivered is what the answer to a commit says of a message that is on its topic.
var delivered = []byte(`"state":"delivered"`)

// send prepares a message and commits it. Its id is taken from the answer, as a client would that had not made it.
func (c *messageCaller) send(s *sender) error {
	c.event = s.appendEvent(c.event[:0])
	answer, err := c.expectOf("POST", preparePath, log.StructuredContentType, c.event, 201)
	if err != nil {
		return err
	}
	id, err := idOf(answer)
	if err != nil {
		return err
	}
	c.path = append(append(append(c.path[:0], "/v1/messages/"...), id...), "/commit"...)
	if answer, err = c.expect("POST", string(c.path), nil, 200); err != nil {
		return err
	}
	if !bytes.Contains(answer, delivered) {
		return fmt.Errorf("POST %s: answered %.400s", c.path, answer)
	}
	return nil
}

// idOf returns the id that an answered message begins with.
func idOf(message []byte) ([]byte, error) {
	const head, length = `{"id":"`, 36
	if len(message) < len(head)+length || string(message[:len(head)]) != head {
		return nil, fmt.Errorf("a message was answered that does not begin with its id: %.400s", message)
	}
	return message[len(head):][:length], nil
}
