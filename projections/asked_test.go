package projections_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/remitlog/remit/broker"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/projections/lists"
)

// oracle answers for all producers, at once.
type oracle struct {
	mu   sync.Mutex
	says broker.Said // of every check; silence if it has no verdict
	// prechecks are what the producers say that are asked before delivery.
	prechecks map[string]broker.Said
}

func (o *oracle) say(v broker.Verdict) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.says = broker.Said{Verdict: v, Reason: "says " + string(v)}
}

func (o *oracle) Wants(broker.Question) bool { return true }

func (o *oracle) Check(_ broker.Question, done func(any, error)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.says.Verdict == "" {
		go done(nil, errors.New("silence"))
		return
	}
	go done(o.says, nil)
}

func (o *oracle) Prechecks(q broker.Question) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, ok := o.prechecks[q.Message.Producer]
	return ok
}

func (o *oracle) Waits(q broker.Question) bool { return o.Prechecks(q) }

func (o *oracle) Precheck(q broker.Question, done func(any, error)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	go done(o.prechecks[q.Message.Producer], nil)
}

func (*oracle) Landed(broker.Question, broker.Said, broker.Outcome) {}

// impatient is asked after a moment, and parked at the first unknown.
var impatient = broker.Schedule{FirstAfter: 1, Interval: 1, MaxInterval: 5, Deadline: 1}

// until waits until a message stands where it should, in the core.
func (w *world) until(id log.ID, want broker.State) {
	w.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		var m broker.Message
		if err := w.c.Node.Peek(w.c.Node.PartitionOfID(id), func(rows fold.Reader) { m, _, _ = broker.Get(rows, id) }); err != nil {
			w.t.Fatal(err)
		}
		if m.State == want {
			return
		}
		select {
		case <-tick.C:
		case <-w.t.Context().Done():
			w.t.Fatalf("message %s stays %s", id, m.State)
		}
	}
}

func person(id log.ID, why string) broker.Decision {
	return broker.Decision{ID: id, By: "ann", Reason: why}
}

// populateAsked drives every fact of messages through the core that comes of asking their producers.
func (w *world) populateAsked() map[string]log.ID {
	w.t.Helper()
	w.topic("asked")
	all := map[string]log.ID{}
	prepare := func(name, producer string, s broker.Schedule) log.ID {
		all[name] = w.prepareFor("asked", producer, name, name, "", s)
		return all[name]
	}
	w.oracle.say(broker.VerdictUnknown)
	for _, name := range []string{"parked", "resumed", "parked-committed", "parked-rolledback", "parked-asked"} {
		prepare(name, "slow", impatient)
	}
	for _, id := range all {
		w.until(id, broker.StateParked)
	}
	w.settle(all["parked-committed"], "parked-committed", broker.InputCommit, "ann")
	w.settle(all["parked-rolledback"], "parked-rolledback", broker.InputRollback, "ann")
	w.ask(all["parked-asked"], "is it done?")

	w.ask(prepare("asked", "slow", broker.Schedule{}), "what is it?")
	w.ask(all["asked"], "and now?")
	w.oracle.say(broker.VerdictRollback)
	w.ask(prepare("asked-rolledback", "slow", broker.Schedule{}), "what is it?")
	w.settle(all["asked-rolledback"], "asked-rolledback", broker.InputCommit, "late")
	w.oracle.say(broker.VerdictCommit)
	w.until(prepare("checked-committed", "slow", impatient), broker.StateDelivered)

	w.oracle.say("")
	w.do("resumed", broker.Resume{Decision: person(all["resumed"], "mended")})
	w.settle(prepare("dropped", "dropper", broker.Schedule{}), "dropped", broker.InputCommit, "dropper")
	w.settle(prepare("held", "holder", broker.Schedule{}), "held", broker.InputCommit, "holder")
	w.until(all["dropped"], broker.StateDropped)
	return all
}

func (w *world) ask(id log.ID, why string) {
	w.t.Helper()
	if _, _, err := w.c.Broker.Ask(w.t.Context(), w.c.Node, person(id, why)); err != nil {
		w.t.Fatal(err)
	}
}

// What comes of asking producers: lists by state, and histories, who and why among them.
func TestQueriesOfAskedMessages(t *testing.T) {
	w := open(t, vfs.NewMem())
	defer w.close()
	all := w.populateAsked()
	w.rest()
	v := w.v.Transactions
	for state, want := range map[string]string{
		"parked": "[parked parked-asked]", "prepared": "[asked resumed]", "committed": "[held]", "dropped": "[dropped]",
		"rolledback": "[asked-rolledback parked-rolledback]", "delivered": "[checked-committed parked-committed]",
	} {
		for _, f := range []mfilter{{State: state}, {State: state, Topic: "asked"}} {
			got := every(t, func(page lists.Page) ([]msg, []byte, error) { return v.Messages(t.Context(), f, page) })
			if list := listed(got, func(m msg) string { return last(m.Name) }); sorted(list) != sorted(want) {
				t.Errorf("%+v: %s, want %s", f, list, want)
			}
		}
	}
	only := mfilter{State: "parked", Only: func(id log.ID) bool { return id == all["parked"] }}
	if got := every(t, func(page lists.Page) ([]msg, []byte, error) { return v.Messages(t.Context(), only, page) }); len(got) != 1 || got[0].ID != all["parked"] {
		t.Errorf("only one is wanted: %+v", got)
	}
	const prepared, parked, resumed, asked = "prepared by slow", "parked by slow: says unknown", "resumed by ann: mended", "checkasked by ann: "
	for name, want := range map[string][]string{
		"parked":            {prepared, parked},
		"resumed":           {prepared, parked, resumed},
		"parked-committed":  {prepared, parked, "committed by ann: because"},
		"parked-rolledback": {prepared, parked, "rolledback by ann: because"},
		"parked-asked":      {prepared, parked, asked + "is it done?"},
		"asked":             {prepared, asked + "what is it?", asked + "and now?"},
		"asked-rolledback":  {prepared, asked + "what is it?", "rolledback by slow: says rollback", "conflicted by late: wanted commit, recorded rolledback"},
		"checked-committed": {prepared, "committed by slow: says commit"},
		"dropped":           {"prepared by dropper", "committed by dropper: because", "dropped by dropper: too late"},
		"held":              {"prepared by holder", "committed by holder: because"},
	} {
		m, ok, err := v.Message(t.Context(), all[name])
		if err != nil || !ok {
			t.Fatalf("%s: %t %v", name, ok, err)
		}
		var got []string
		for _, s := range m.History {
			step := short(strings.TrimPrefix(s.Type, "remit.message.")) + " by " + s.By
			if s.Detail != "" {
				step += ": " + s.Detail
			}
			got = append(got, strings.TrimPrefix(step, "message."))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s:\n got %q\nwant %q", name, got, want)
		}
		story, ok, err := v.Story(t.Context(), name)
		if err != nil || !ok || len(story.Events) != len(want)+btoi(m.DeliveredAt != nil) {
			t.Errorf("the story of %s: %t %v %+v", name, ok, err, story.Events)
		}
	}
	for name, want := range map[string]string{
		"parked": "parked  says unknown", "resumed": "prepared  ", "dropped": "dropped dropper too late", "parked-committed": "delivered ann because",
		"asked-rolledback": "rolledback slow says rollback", "asked": "prepared  ",
	} {
		m, _, err := v.Message(t.Context(), all[name])
		if got := fmt.Sprintf("%s %s %s", m.State, m.DecidedBy, m.Reason); err != nil || got != want {
			t.Errorf("%s: %q, want %q (%v)", name, got, want, err)
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// The message that is undecided longest is found, also when it was parked, and when those before it are decided one by one.
func TestOldestUndecided(t *testing.T) {
	w := open(t, vfs.NewMem())
	defer w.close()
	u := w.v.Transactions.Undecided()
	oldest := func() time.Time {
		t.Helper()
		w.rest()
		at, known, err := u.Oldest()
		if err != nil || !known {
			t.Fatal(known, err)
		}
		return at
	}
	if at := oldest(); !at.IsZero() {
		t.Errorf("%s, and there is no message", at)
	}
	w.topic("asked")
	w.oracle.say(broker.VerdictUnknown)
	ids := []log.ID{w.prepareFor("asked", "slow", "k0", "o-0", "", impatient)}
	w.until(ids[0], broker.StateParked)
	w.oracle.say("")
	for i := 1; i < 8; i++ { // every other one waits for its producer's word once it is committed
		ids = append(ids, w.prepareFor("asked", []string{"slow", "holder"}[i%2], fmt.Sprint("k", i), fmt.Sprint("o-", i), "", broker.Schedule{}))
	}
	for _, i := range []int{3, 1, 0, 7, 2} {
		w.settle(ids[i], fmt.Sprint("k", i), broker.InputCommit, "ann")
		got, first := oldest(), time.Time{}
		for _, id := range ids {
			m, _, err := w.v.Transactions.Message(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if (m.State == "prepared" || m.State == "parked") && (first.IsZero() || m.PreparedAt.Before(first)) {
				first = m.PreparedAt
			}
		}
		if !got.Equal(first) {
			t.Errorf("after %d: %s, want %s", i, got, first)
		}
	}
	w.settle(ids[4], "k4", broker.InputRollback, "ann")
	w.settle(ids[5], "k5", broker.InputCommit, "ann")
	w.settle(ids[6], "k6", broker.InputRollback, "ann")
	if at := oldest(); !at.IsZero() {
		t.Errorf("%s, and all are decided", at)
	}
	again, known, err := w.v.Transactions.Undecided().Oldest() // from the beginning
	if err != nil || !known || !again.IsZero() {
		t.Error(again, known, err)
	}
}
