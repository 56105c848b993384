package api

import (
	"bytes"
	"net/http"
	"sync"

	"github.com/remitlog/remit/broker"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
)

// createBatch stores half messages and decides them, a line each. A decision may follow the message that it is about, where that
// brought its own id: lines of one id are taken in line order.
func (m *Messages) createBatch(w http.ResponseWriter, r *http.Request) error {
	a, err := m.accept(r)
	if err != nil {
		return err
	}
	b := &messageBatch{accepted: a, messages: m}
	w.Header().Set("Trailer", PositionHeader) // it is known when all is answered
	if err := Stream(w, r, "message", b.begin); err != nil {
		w.Header().Del("Trailer")
		return err
	}
	SetPosition(w, b.position)
	return nil
}

// messageBatch is one call of createBatch.
type messageBatch struct {
	accepted
	messages *Messages

	mu       sync.Mutex
	position log.Position
}

func (b *messageBatch) note(p log.Position) {
	b.mu.Lock()
	b.position = b.position.Merge(p)
	b.mu.Unlock()
}

// begin takes a line. What has a specversion is an event: a decision has no use for the word.
func (b *messageBatch) begin(l *Line) {
	var err error
	if bytes.Contains(l.Text, []byte(`"specversion"`)) {
		err = b.prepare(l)
	} else {
		err = b.decide(l)
	}
	if err != nil {
		l.Fail(err)
	}
}

func (b *messageBatch) prepare(l *Line) error {
	e, err := log.ParseStructured(l.Text)
	if err != nil {
		return eventProblem(err)
	}
	h, err := b.messages.take(b.accepted, e)
	if err != nil {
		return err
	}
	b.messages.prepare(h, func(p prepared, err error) {
		if err != nil {
			l.Fail(err)
			return
		}
		b.note(p.position)
		l.Replayed = p.Replayed
		status, message := b.messages.prepared(p)
		b.answer(l, status, message, p.Outcome, p.position)
	})
	return nil
}

// answer answers a line, on the goroutine of a partition: what reads the view does so on another.
func (b *messageBatch) answer(l *Line, status int, message Message, o broker.Outcome, at log.Position) {
	if !forgotten(message, o) {
		l.Answer(status, message)
		return
	}
	go func() { l.Answer(status, b.messages.recall(l.Context(), message, o, at)) }()
}

// decision is a line that decides.
type decision struct {
	Commit   string `json:"commit,omitzero"`
	Rollback string `json:"rollback,omitzero"`
	Reason   string `json:"reason,omitzero"`
}

func (d *decision) read() (input broker.Input, id log.ID, err error) {
	switch {
	case (d.Commit == "") == (d.Rollback == ""):
		return "", id, NewProblem(CodeInvalidBody, `a line is a CloudEvent, {"commit":"<id>"} or {"rollback":"<id>"}`)
	case d.Commit != "":
		input = broker.InputCommit
		id, err = parseMessageID("commit", d.Commit)
	default:
		input = broker.InputRollback
		id, err = parseMessageID("rollback", d.Rollback)
	}
	if err == nil {
		err = checkReason(d.Reason)
	}
	return input, id, err
}

func (b *messageBatch) decide(l *Line) error {
	var d decision
	if err := l.Decode(&d); err != nil {
		return err
	}
	input, id, err := d.read()
	if err != nil {
		return err
	}
	m := b.messages
	c := broker.Settle{Broker: m.Broker, ID: id, Input: input, Reason: d.Reason}
	return m.Node.Submit(m.Node.PartitionOfID(id), c, func(res fold.Result) {
		if res.Err != nil {
			l.Fail(settleProblem(id, res.Err))
			return
		}
		b.note(res.Position())
		outcome := res.Answer.(broker.Outcome)
		if l.Replayed = outcome.Replayed; outcome.Conflict {
			go func() { l.Fail(decidedOtherwise(m.again(l.Context(), outcome, res.Position()))) }() // it reads the view
			return
		}
		b.answer(l, http.StatusOK, m.decided(outcome), outcome, res.Position())
	})
}
