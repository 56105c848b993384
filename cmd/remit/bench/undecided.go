package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/remitlog/remit/cmd/remit/torture"
	"github.com/remitlog/remit/log"
)

// UndecidedReport is what came of messages beside a great many that nobody decides.
type UndecidedReport struct {
	Callers   int `json:"callers"`
	Undecided int `json:"undecided"`
	// With is measured on the server that has them, Without on one that has none, in turn, each the first of every second round. Checks are made
	// all the while: what they take of the processor is taken from both.
	With    Figure `json:"with"`
	Without Figure `json:"without"`
	// Ratio is the median over the rounds.
	Ratio float64 `json:"ratio"`
	// CheckMicros is the processor time that the server takes for one check while it does nothing else.
	CheckMicros float64 `json:"serverCpuMicrosPerCheck,omitzero"`
	// Checks is how often the producer was asked about them while the load ran, and Due how many of them fall due in a second.
	Checks int64 `json:"checks"`
	Due    int   `json:"duePerSecond"`
	// ResidentBytes is what the server that has them has resident at the end; 0 where it is not known.
	ResidentBytes int64 `json:"serverResidentBytes,omitzero"`
}

// Undecided measures transactional messages on o.Server, which has nothing else, and on another that has many half messages which nobody decides, of
// which due fall due in a second while it is measured.
func Undecided(ctx context.Context, o MessageOptions, other *torture.Server, many, due int) (report UndecidedReport, err error) {
	report = UndecidedReport{Callers: o.Callers, Undecided: many, Due: due}
	producer, err := answerChecks()
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, producer.Close()) }()
	sides := make([]*sender, 2)
	for i, server := range []*torture.Server{o.Server, other} {
		side := o
		side.Server = server
		sides[i] = &sender{MessageOptions: side, data: filler(o.Bytes), run: strconv.FormatInt(time.Now().UnixNano(), 36)}
		if err := sides[i].register(ctx, producer.url); err != nil {
			return report, err
		}
	}
	if err := sides[1].leave(ctx, many, due); err != nil {
		return report, err
	}
	if report.CheckMicros, err = producer.cost(ctx, other); err != nil {
		return report, err
	}
	o.Begin()
	defer o.End()
	watch := []*lagWatch{{host: o.Server.HTTP}, {host: other.HTTP}}
	recorders := []*recorder{newRecorder(), newRecorder()}
	without, with := recorders[0], recorders[1]
	each, before := o.Duration/time.Duration(o.Rounds), producer.checks.Load()
	var ratios []float64
	for round := range o.Rounds {
		for _, i := range []int{round % 2, 1 - round%2} { // what one leaves to do slows the other
			if err = sides[i].round(ctx, each, recorders[i]); err == nil {
				err = watch[i].catchUp(ctx)
			}
			if err != nil {
				return report, err
			}
		}
		ratios = append(ratios, with.rounds[round]/without.rounds[round])
		o.Say("round %d of %d: without %.0f/s, with %d undecided %.0f/s", round+1, o.Rounds, without.rounds[round], many, with.rounds[round])
	}
	report.With, report.Without = with.figure(fmt.Sprintf("with %d undecided", many)), without.figure("without")
	report.Ratio = median(ratios)
	report.Checks, report.ResidentBytes = producer.checks.Load()-before, other.ResidentBytes()
	return report, nil
}

// costFor is how long checks alone are watched.
const costFor = 3 * time.Second

// cost measures what one check costs a server that does nothing else, in microseconds; 0 if none was made.
func (c *checked) cost(ctx context.Context, server *torture.Server) (float64, error) {
	checks, busy := c.checks.Load(), server.CPU()
	select {
	case <-time.After(costFor):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if checks = c.checks.Load() - checks; checks == 0 {
		return 0, nil
	}
	return float64((server.CPU() - busy).Microseconds()) / float64(checks), nil
}

// leaveStream is how many half messages one call stores.
const leaveStream = 50_000

// leave stores half messages that nobody decides, and returns when the first fall due: from then on so many in a second, or since then, if storing took longer.
func (s *sender) leave(ctx context.Context, many, due int) error {
	const perSecond = 15_000 // as they are stored; a guess that only says when the first falls due
	first := time.Now().Add(time.Duration(many/perSecond) * time.Second)
	for i := 0; i < many; i += leaveStream {
		n := min(leaveStream, many-i)
		r, w := io.Pipe()
		go func() {
			b := bufio.NewWriterSize(w, 64<<10)
			for k := i; k < i+n; k++ {
				key := "undecided-" + strconv.Itoa(k)
				after := max(time.Until(first.Add(time.Duration(k)*time.Second/time.Duration(due))), time.Second)
				fmt.Fprintf(b, `{"specversion":"1.0","id":"%s-u%d","source":"/bench/orders","type":"com.example.order.placed.v1","datacontenttype":"application/json","partitionkey":"%s","remitid":"%s","checkafter":"%dms","data":{"n":%d}}`+"\n",
					s.run, k, key, log.NewID(time.Now(), key), after.Milliseconds(), k)
			}
			_ = w.CloseWithError(b.Flush())
		}()
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.Server.HTTP+batchPath, r)
		if err != nil {
			return fmt.Errorf("bench: %w", err)
		}
		request.Header.Set("Content-Type", "application/x-ndjson")
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			return fmt.Errorf("bench: %w", err)
		}
		if err := answered(answer.Body, n); err != nil {
			return err
		}
		s.Say("%d of %d undecided messages are stored", i+n, many)
	}
	select {
	case <-time.After(time.Until(first)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// answered reads the answers of a batch, all of which are to be good.
func answered(body io.ReadCloser, want int) error {
	defer body.Close()
	lines, n := bufio.NewScanner(body), 0
	lines.Buffer(nil, 2<<20)
	for ; lines.Scan(); n++ {
		var line, status int
		if _, err := fmt.Sscanf(lines.Text(), `{"line":%d,"status":%d`, &line, &status); err != nil || status != http.StatusCreated {
			return fmt.Errorf("bench: answered %.400s", lines.Text())
		}
	}
	if err := lines.Err(); err != nil || n != want {
		return fmt.Errorf("bench: %d of %d lines were answered: %w", n, want, errors.Join(err, errShort))
	}
	return nil
}
