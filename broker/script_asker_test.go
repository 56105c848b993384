package broker_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/cockroachdb/datadriven"

	"github.com/remitlog/remit/broker"
	"github.com/remitlog/remit/log"
)

// scriptAsker is the producer of a script.
type scriptAsker struct {
	names     map[log.ID]string
	prechecks bool

	mu     sync.Mutex
	told   bool // a script that says nothing of its producer hears nothing of it
	says   string
	reason string
	unwant bool
	open   []func(any, error) // of those that are never answered
	said   strings.Builder
}

func (a *scriptAsker) set(d *datadriven.TestData) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.told = true
	a.says, a.reason, a.unwant = d.CmdArgs[0].Key, "", false
	for _, arg := range d.CmdArgs[1:] {
		switch arg.Key {
		case "reason":
			a.reason = arg.Vals[0]
		case "unwanted":
			a.unwant = true
		}
	}
	if a.says == "late" { // what is out is answered now
		for _, done := range a.open {
			go done(broker.Said{Verdict: broker.Verdict(d.CmdArgs[1].Key)}, nil)
		}
		a.open = nil
	}
}

func (a *scriptAsker) heard() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	defer a.said.Reset()
	return a.said.String()
}

func (a *scriptAsker) note(format string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	fmt.Fprintf(&a.said, format+"\n", args...)
}

func (a *scriptAsker) Wants(broker.Question) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.unwant
}

func (a *scriptAsker) Prechecks(broker.Question) bool { return a.prechecks }
func (a *scriptAsker) Waits(broker.Question) bool     { return a.prechecks }

func (a *scriptAsker) Check(q broker.Question, done func(any, error)) {
	a.answer(fmt.Sprintf("check %d of %s", q.Attempt, a.names[q.ID]), done)
}

func (a *scriptAsker) Precheck(q broker.Question, done func(any, error)) {
	a.answer(fmt.Sprintf("precheck %d of %s", q.Attempt, a.names[q.ID]), done)
}

func (a *scriptAsker) answer(what string, done func(any, error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.told {
		fmt.Fprintf(&a.said, "asked  %s: %s\n", what, a.says)
	}
	switch a.says {
	case "silence":
		go done(nil, errors.New("silence"))
	case "never":
		a.open = append(a.open, done)
	default:
		go done(broker.Said{Verdict: broker.Verdict(a.says), Reason: a.reason}, nil)
	}
}

func (a *scriptAsker) Landed(q broker.Question, said broker.Said, o broker.Outcome) {
	switch {
	case o.Conflict:
		a.note("landed %s of %s: unexpected", said.Verdict, a.names[q.ID])
	case o.Replayed:
		a.note("landed %s of %s: again", said.Verdict, a.names[q.ID])
	}
}

func (s *script) askNow(d *datadriven.TestData) string {
	decision := broker.Decision{ID: s.id(d.CmdArgs[0].Key, ""), By: "ann", Reason: "looks odd"}
	r, said, err := s.b.Ask(s.t.Context(), s.node, decision)
	if err != nil {
		return verdict(err)
	}
	o := r.Answer.(broker.Outcome)
	if o.Conflict {
		return "answer " + o.Message.State.String() + ", and that stands\n"
	}
	return fmt.Sprintf("answer %s, said %s\n", o.Message.State, said.Verdict)
}

func decision(names map[log.ID]string, d broker.Decision) string {
	return fmt.Sprintf(" %s by=%s reason=%q", names[d.ID], d.By, d.Reason)
}

var _ broker.Asker = (*scriptAsker)(nil)
