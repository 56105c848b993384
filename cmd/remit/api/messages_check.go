package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/remitlog/remit/broker"
)

// CheckWaitMax is how long a person's check waits for the producer. Past it the message is answered as it stands, and the schedule goes on.
const CheckWaitMax = 45 * time.Second

// personOf reads what a person wants of a message. Why is needed: it is what others have to go by.
func personOf(w http.ResponseWriter, r *http.Request) (broker.Decision, error) {
	d, err := decisionOf(w, r)
	if err == nil && strings.TrimSpace(d.Reason) == "" {
		err = invalidField("reason", "it is missing; say why: it stands in the message's history")
	}
	return d, err
}

// resume puts a parked message back.
func (m *Messages) resume(w http.ResponseWriter, r *http.Request) error {
	d, err := personOf(w, r)
	if err != nil {
		return err
	}
	return m.do(w, r, d.ID, broker.Resume{Decision: d})
}

// check asks the producer of an undecided message now, and answers with what was heard and how the message stands then.
func (m *Messages) check(w http.ResponseWriter, r *http.Request) error {
	d, err := personOf(w, r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), CheckWaitMax)
	defer cancel()
	res, said, err := m.Broker.Ask(ctx, m.Node, d)
	outcome, asked := res.Answer.(broker.Outcome)
	if !asked {
		return settleProblem(d.ID, err)
	}
	SetPosition(w, res.Position())
	answer := m.again(r.Context(), outcome, res.Position())
	if outcome.Conflict {
		return decidedOtherwise(answer)
	}
	answer.Check = &Heard{Verdict: string(said.Verdict), Reason: said.Reason}
	switch {
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil:
		answer.Check = &Heard{Error: "no answer within " + Duration(CheckWaitMax).String()}
	case err != nil:
		answer.Check = &Heard{Error: err.Error()}
	}
	return WriteJSON(w, http.StatusOK, answer)
}
