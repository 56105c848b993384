package saga

import (
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/saga/accounts"
)

// Begun is the fact that an activity began: its message is prepared, and its local actions are tried.
type Begun struct {
	ID          log.ID          `json:"id"`
	Kind        Kind            `json:"kind"`
	Name        string          `json:"name,omitzero"`
	Key         string          `json:"key"`
	Parent      log.ID          `json:"parent,omitzero"`
	Fingerprint log.Fingerprint `json:"fingerprint"`
	Reference   string          `json:"reference,omitzero"`
	Manual      bool            `json:"manual,omitzero"`
	Deadline    int64           `json:"deadline"` // Unix ms
	// Refused is why it cannot be: a local try was refused, or the other side will not take it. Then nothing is held, and
	// the next event decides it.
	Refused accounts.Reason `json:"refused,omitzero"`
	Actions []Action        `json:"actions"`
}

// Decided is the fact that an activity, and with it its message, was decided.
type Decided struct {
	ID      log.ID  `json:"id"`
	Kind    Kind    `json:"kind"`
	Parent  log.ID  `json:"parent,omitzero"`
	Outcome Outcome `json:"outcome"`
	By      string  `json:"by,omitzero"`
	Reason  string  `json:"reason,omitzero"`
	// Amount is what is taken: all that was asked, or what was captured.
	Amount   int64              `json:"amount,omitzero"`
	Postings []accounts.Posting `json:"postings,omitempty"`
	// Partition of the topic that has the message since this very append; nil if there is no message.
	Partition *int32 `json:"partition,omitempty"`
}

// Ended is the fact that all participants have done what was decided.
type Ended struct {
	ID log.ID `json:"id"`
}

// EventType is the type on the log.
func (Begun) EventType() string { return "remit.activity.begun.v1" }

// EventType is the type on the log.
func (Decided) EventType() string { return "remit.activity.decided.v1" }

// EventType is the type on the log.
func (Ended) EventType() string { return "remit.activity.ended.v1" }

// AppendJSON implements fold.Appender.
func (f Begun) AppendJSON(b []byte) []byte {
	o := fold.ObjectIn(b)
	o.ID("id", f.ID)
	o.Text("kind", string(f.Kind))
	o.TextIf("name", f.Name)
	o.Text("key", f.Key)
	o.IDIf("parent", f.Parent)
	o.Fingerprint("fingerprint", f.Fingerprint)
	o.TextIf("reference", f.Reference)
	o.TrueIf("manual", f.Manual)
	o.Number("deadline", f.Deadline)
	o.TextIf("refused", string(f.Refused))
	o.Open("actions", '[')
	for _, x := range f.Actions {
		o.Open("", '{')
		o.Text("name", x.Name)
		o.Text("participant", x.Participant)
		o.Open("order", '{')
		o.Text("side", string(x.Order.Side))
		o.Text("account", x.Order.Account)
		o.Text("currency", string(x.Order.Currency))
		o.Number("amount", x.Order.Amount)
		o.Close('}')
		o.Close('}')
	}
	o.Close(']')
	return o.End()
}

// AppendJSON implements fold.Appender.
func (f Decided) AppendJSON(b []byte) []byte {
	o := fold.ObjectIn(b)
	o.ID("id", f.ID)
	o.Text("kind", string(f.Kind))
	o.IDIf("parent", f.Parent)
	o.Text("outcome", string(f.Outcome))
	o.TextIf("by", f.By)
	o.TextIf("reason", f.Reason)
	o.NumberIf("amount", f.Amount)
	accounts.WritePostings(&o, f.Postings)
	if f.Partition != nil {
		o.Number("partition", int64(*f.Partition))
	}
	return o.End()
}

// AppendJSON implements fold.Appender.
func (f Ended) AppendJSON(b []byte) []byte {
	o := fold.ObjectIn(b)
	o.ID("id", f.ID)
	return o.End()
}

// Facts lists the facts of this package.
func Facts() []fold.FactType {
	return []fold.FactType{fold.FactOf[Begun](), fold.FactOf[Decided](), fold.FactOf[Ended]()}
}
