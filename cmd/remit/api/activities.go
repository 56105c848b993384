package api

import (
	"net/http"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/log/names"
	"github.com/remitlog/remit/projections"
	"github.com/remitlog/remit/projections/lists"
	"github.com/remitlog/remit/projections/transactions"
)

// Activities are the calls that show activities. Payments and refunds are activities.
type Activities struct {
	Views *projections.Views
	Node  *fold.Node
}

// Routes returns them.
func (a *Activities) Routes() []Route {
	return []Route{
		{Method: "GET", Pattern: "/v1/activities/{id}", Name: "getActivity", Handler: a.get},
		{Method: "GET", Pattern: "/v1/activities", Name: "listActivities", Handler: a.list},
	}
}

// Activity is an activity as it is answered.
type Activity struct {
	ID        log.ID   `json:"id"`
	Name      string   `json:"name,omitzero"`
	Kind      string   `json:"kind"` // payment, refund, or the caller's own
	Key       string   `json:"key"`
	Mode      string   `json:"mode"`
	State     string   `json:"state"`
	Reason    string   `json:"reason,omitzero"`
	Deadline  Time     `json:"deadline"`
	Actions   []Action `json:"actions"`
	CreatedAt Time     `json:"createdAt"`
	DecidedAt Time     `json:"decidedAt,omitzero"`
	EndedAt   Time     `json:"endedAt,omitzero"`
	History   []Step   `json:"history,omitempty"`
}

// Action is one participant's part in an activity. Side, account, amount and currency are those of the participant accounts.
type Action struct {
	Name        string `json:"name"`
	Participant string `json:"participant"`
	State       string `json:"state"`
	Reason      string `json:"reason,omitzero"`
	Side        string `json:"side,omitzero"`
	Account     string `json:"account,omitzero"`
	Amount      string `json:"amount,omitzero"`
	Currency    string `json:"currency,omitzero"`
}

func newActivity(x transactions.Activity) Activity {
	a := Activity{
		ID: x.ID, Name: x.Name, Kind: x.Kind, Key: x.Key, Mode: x.Mode, State: x.State, Reason: x.Reason, Deadline: Time(x.Deadline),
		Actions: make([]Action, len(x.Actions)), CreatedAt: Time(x.CreatedAt), DecidedAt: Time(x.DecidedAt), EndedAt: Time(x.EndedAt),
		History: steps(x.History),
	}
	for i, action := range x.Actions {
		a.Actions[i] = Action{Name: action.Name, Participant: action.Participant, State: action.State, Reason: action.Reason}
		if action.Currency != "" {
			a.Actions[i].Side, a.Actions[i].Account = action.Side, action.Account
			a.Actions[i].Amount, a.Actions[i].Currency = amount(action.Amount, action.Currency), action.Currency
		}
	}
	return a
}

func (a *Activities) get(w http.ResponseWriter, r *http.Request) error {
	ref, err := ParseRef("id", r.PathValue("id"))
	if err != nil {
		return err
	}
	rd := beginReading(r)
	id, ok, err := a.resolve(ref)
	if err == nil && !ok {
		id, ok, err = rd.refundNamed(w, r, a.Views, a.Node.Position(), ref.Name)
	}
	if err != nil {
		return err
	}
	if ok {
		p := a.Node.PartitionOfID(id)
		if err := rd.from(w, r, a.Views, transactions.Name, log.Position{p: a.Node.Position()[p]}); err != nil {
			return err
		}
		found, there, err := a.Views.Transactions.Activity(id)
		if err != nil {
			return err
		}
		if there {
			return WriteJSON(w, http.StatusOK, newActivity(found))
		}
	}
	return rd.missing(NotFound("activity", ref.String(), "all activities, payments and refunds among them, by id and by name"))
}

// resolve returns what an id or a name stands for: an activity's, or a payment's.
func (a *Activities) resolve(ref Ref) (log.ID, bool, error) {
	if ref.IsID() {
		return ref.ID, true, nil
	}
	for _, kind := range []names.Kind{names.KindActivity, names.KindPayment} {
		named, ok, err := names.Lookup(a.Node, kind, ref.Name)
		if ok || err != nil {
			return named.ID, ok, err
		}
	}
	return log.ID{}, false, nil
}

// refundNamed returns the refund of a name, which only its payment knows; 409 ambiguous if there are several. The view must have come
// to a position first.
func (rd *reading) refundNamed(w http.ResponseWriter, r *http.Request, views *projections.Views, at log.Position, name string) (id log.ID, ok bool, err error) {
	if err := rd.from(w, r, views, transactions.Name, at); err != nil {
		return id, false, err
	}
	found, more, err := views.Transactions.RefundsNamed(name, lists.Page{})
	if err != nil || len(found) == 0 {
		return id, false, err
	}
	if len(found) > 1 {
		ids := make([]log.ID, len(found))
		for i, f := range found {
			ids[i] = f.ID
		}
		how := ""
		if more != nil {
			how = "more than "
		}
		return id, false, NewProblem(CodeAmbiguous, "%s%d refunds of different payments are called %q; ask for one by its id, or for /v1/payments/{id}/refunds", how, len(ids), name).With("ids", ids)
	}
	return found[0].ID, true, nil
}

func (a *Activities) list(w http.ResponseWriter, r *http.Request) error {
	rd := beginReading(r)
	q := rd.query
	f := transactions.ActivityFilter{
		State:       q.OneOf("state", "trying", "confirming", "cancelling", "confirmed", "cancelled"),
		Participant: q.String("participant"), Range: rangeOf(q),
	}
	page := q.Page()
	if err := rd.from(w, r, a.Views, transactions.Name, nil); err != nil {
		return err
	}
	found, next, err := a.Views.Transactions.Activities(f, pageOf(page))
	return listOf(w, q, found, next, err, newActivity)
}
