package producer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/remitlog/remit/log"
)

// The types of the events that remit asks with.
const (
	CheckType    = "remit.message.check.v1"
	PrecheckType = "remit.message.precheck.v1"
)

// CheckBodyMax is the largest body of a question that is read, in bytes; past it 413.
const CheckBodyMax = 4 << 20

// Question is what remit asks about a message.
type Question struct {
	ID       log.ID `json:"messageId"`
	Name     string `json:"name"` // source and id of the event
	Topic    string `json:"topic"`
	Producer string `json:"producer"`
	Attempt  int    `json:"attempt"` // 0 for a person's
	// Event is as it will be delivered. It is there in pre-checks.
	Event event.Event `json:"-"`
}

// CheckHandler answers remit's back-checks: it is what the URL of a [Registration] leads to.
//
// It answers by the row that Send has written, and 200 says it for good: commit if the local transaction has committed, rollback if it has
// not, and then it never will (T2). While it runs in this process the answer is unknown; a transaction of another process
// is waited for. When the database does not answer the status is 503, which is no answer. It needs no Send to run, nor
// the process that sent: any process of the service will do that has the same database.
func (p *Producer[T]) CheckHandler() http.Handler {
	return p.handler(CheckType, func(ctx context.Context, q Question) (v Verdict, reason string, err error) {
		v, err = p.answer(ctx, q)
		return v, "", err
	})
}

// PrecheckHandler answers remit's pre-checks by what decide says of a committed message: Deliver, Hold or Drop, and why. It holds them to the same rules as
// CheckHandler does: signature, bounds, and whose message it is. An error of decide is 503, and it is asked again.
func (p *Producer[T]) PrecheckHandler(decide func(ctx context.Context, q Question) (v Verdict, reason string, err error)) http.Handler {
	return p.handler(PrecheckType, decide)
}

// handler answers questions of one type.
func (p *Producer[T]) handler(typ string, answer func(context.Context, Question) (Verdict, string, error)) http.Handler {
	keys, _ := verifiers(p.opts.Secrets) // Validate has seen them
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q Question
		said := struct {
			Verdict Verdict `json:"verdict"`
			Reason  string  `json:"reason,omitzero"`
		}{Verdict: Unknown}
		status, err := p.question(w, r, typ, keys, &q)
		if err == nil {
			ctx, cancel := context.WithTimeout(r.Context(), p.opts.CheckMax)
			defer cancel()
			said.Verdict, said.Reason, err = answer(ctx, q)
		}
		p.opts.Listener.Checked(q, said.Verdict, err)
		switch {
		case status != 0:
			http.Error(w, err.Error(), status)
			return
		case err != nil: // what a database says is not for everybody
			http.Error(w, fmt.Sprintf("producer: message %s: there is no answer now", q.ID), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.MarshalWrite(w, said) // if it does not arrive, remit asks again
	})
}

// question reads what is asked. The status goes with an error.
func (p *Producer[T]) question(w http.ResponseWriter, r *http.Request, typ string, keys []*standardwebhooks.Webhook, q *Question) (status int, err error) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return http.StatusMethodNotAllowed, errors.New("producer: remit asks with POST")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, CheckBodyMax))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return http.StatusRequestEntityTooLarge, fmt.Errorf("producer: a question has at most %d bytes", CheckBodyMax)
	} else if err != nil {
		return http.StatusBadRequest, fmt.Errorf("producer: %w", err)
	}
	if err := verify(keys, r.Header, body); err != nil {
		return http.StatusUnauthorized, fmt.Errorf("producer: the question is not signed as it should be: %w", err)
	}
	events, err := log.ParseHTTP(r.Header, body)
	if err != nil {
		return http.StatusBadRequest, fmt.Errorf("producer: %w", err)
	}
	if len(events) != 1 || events[0].Type != typ {
		return http.StatusBadRequest, fmt.Errorf("producer: what is asked here is one event of type %s", typ)
	}
	var data struct {
		Question
		Event jsontext.Value `json:"event"`
	}
	if err := json.Unmarshal(events[0].Data, &data); err != nil {
		return http.StatusBadRequest, fmt.Errorf("producer: the data of the question: %w", err)
	}
	*q = data.Question
	if typ == PrecheckType {
		e, err := log.ParseStructured(data.Event)
		if err != nil {
			return http.StatusBadRequest, fmt.Errorf("producer: the event of the question: %w", err)
		}
		q.Event = e.SDK()
	}
	// INVARIANT: a question about another producer's message is not answered. It has no row here, and would be rolled back for good.
	if q.Producer != p.opts.Producer || q.ID.IsZero() {
		return http.StatusMisdirectedRequest, fmt.Errorf("producer: here is %q; message %s of %q is not known here", p.opts.Producer, q.ID, q.Producer)
	}
	return 0, nil
}

// answer says what became of a message. An error is no answer.
func (p *Producer[T]) answer(ctx context.Context, q Question) (Verdict, error) {
	if !p.under.wait(ctx, q.ID) {
		return Unknown, nil
	}
	v, err := p.verdict(ctx, q.ID)
	if err != nil {
		return Unknown, fmt.Errorf("producer: message %s: %w", q.ID, err)
	}
	return v, nil
}

// secretPrefix begins a secret that is base64, as Standard Webhooks hands them out. Any other text is the key itself, as remit takes it.
const secretPrefix = "whsec_"

func verifiers(secrets []string) (keys []*standardwebhooks.Webhook, err error) {
	for _, secret := range secrets {
		var key *standardwebhooks.Webhook
		if encoded, ok := strings.CutPrefix(secret, secretPrefix); ok && encoded != "" {
			key, err = standardwebhooks.NewWebhook(secret)
		} else if secret != "" && !ok {
			key, err = standardwebhooks.NewWebhookRaw([]byte(secret))
		} else {
			err = errors.New("it is empty")
		}
		if err != nil {
			return nil, errors.New("producer: one of Options.Secrets is empty, or begins with " + secretPrefix + " and is not base64 behind it")
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// verify holds a call to its signature: by one of the keys, and not more than five minutes from now. Without keys everything passes.
func verify(keys []*standardwebhooks.Webhook, h http.Header, body []byte) (err error) {
	for _, key := range keys {
		if err = key.Verify(body, h); err == nil {
			return nil
		}
	}
	return err
}
