package transactions

import (
	"encoding/binary"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/projections/facts"
	"github.com/remitlog/remit/projections/lists"
)

// class says which list a thing is in.
type class byte

const (
	classPayment  class = 'P'
	classRefund   class = 'R'
	classActivity class = 'A' // of any other kind
	classMessage  class = 'M' // a plain message
)

// The phases of an activity and the states of a message, as rows have them.
const (
	phaseTrying     = "trying"
	phaseConfirming = "confirming"
	phaseCancelling = "cancelling"
	phaseConfirmed  = "confirmed"
	phaseCancelled  = "cancelled"

	statePrepared   = "prepared"
	stateCommitted  = "committed"
	stateDelivered  = "delivered"
	stateRolledBack = "rolledback"
	stateParked     = "parked"
	stateDropped    = "dropped"
)

// thing is a payment, refund, activity or plain message. It lives in the partition of its id, and rests on that
// partition's events alone.
type thing struct {
	_     struct{} `cbor:",toarray"`
	Class class
	State string // a phase, or of a plain message its state
	Name  string
	Key   string

	BegunMs, DecidedMs, EndedMs   int64
	BegunAt, DecidedAt, EndedAt   log.Offset // of the events; an end that the decision brought has the decision's
	By, Reason                    string
	Partition                     int32 // of the topic that has its message; -1 if none has
	Asked, Taken, Refunded, Holds int64
	Activity                      *activity
	Message                       *message
	Conflicts                     []conflict
	Marks                         []mark
}

// mark is what happened to a message between its preparing and its end that decided nothing, or took it back.
type mark struct {
	_          struct{} `cbor:",toarray"`
	Kind       string
	Ms         int64
	At         log.Offset
	By, Reason string
}

// The kinds of marks.
const (
	markParked     = "parked"
	markResumed    = "resumed"
	markCheckAsked = "checkasked"
	markDropped    = "dropped"
)

// activity is what began. It never changes, and is shared by all versions of its row.
type activity struct {
	_         struct{} `cbor:",toarray"`
	Kind      string
	Parent    []byte // the id of the activity that it is named under
	Reference string
	Manual    bool
	Refused   string
	Deadline  int64
	Actions   []facts.Action
}

// message is what a plain message began with; the event itself is read from the log.
type message struct {
	_                        struct{} `cbor:",toarray"`
	Topic, Producer          string
	Source, EventID, Subject string
	DeliverAt, DeliverAfter  int64
}

// conflict is someone who wanted to decide otherwise than was decided.
type conflict struct {
	_                            struct{} `cbor:",toarray"`
	Ms                           int64
	At                           log.Offset
	By, Reason, Wanted, Recorded string
}

// account is the row of an account. Amounts are minor units.
type account struct {
	_           struct{} `cbor:",toarray"`
	Currency    string
	State       string
	Balance     int64
	Held        int64
	CreditLimit int64
	OpenedMs    int64
	OpenedAt    log.Offset
}

// entry is one posting on an account, under the account and its place.
type entry struct {
	_       struct{} `cbor:",toarray"`
	Kind    string
	Name    string // of a deposit or withdrawal
	ID      []byte // of the payment or refund
	Other   string // the account on the other side
	Amount  int64
	Balance int64 // after it
}

// part is an action of another partition's activity, in the partition of its account.
type part struct {
	_       struct{} `cbor:",toarray"`
	State   string
	TriedMs int64
	TriedAt log.Offset
	EndedMs int64
	EndedAt log.Offset
	Reason  string
}

// The states of a part.
const (
	partHeld     = "held"
	partDeclined = "declined"
	partPosted   = "posted"
	partVoided   = "voided"
	partCredited = "credited"
)

// claim is the row of a name, in the partition of the name.
type claim struct {
	_  struct{} `cbor:",toarray"`
	ID log.ID
	At log.Offset
}

// The tables of a partition.
var (
	things   = fold.NewTable[thing]('m').Ascending().Until(func(t *thing) bool { return t.EndedMs > 0 })     // by id
	parts    = fold.NewTable[part]('k').Ascending().Until(func(p *part) bool { return p.State != partHeld }) // by id and action
	accounts = fold.NewTable[account]('a')                                                                   // by name
	entries  = fold.NewTable[entry]('e').WriteOnly()                                                         // by account and place
	index    = fold.NewTable[[]byte]('x').WriteOnly()                                                        // by an index's byte, a value and the place of what began
	openings = fold.NewTable[string]('o').WriteOnly()                                                        // names of accounts, by the place of their opening
	claims   = fold.NewTable[claim]('n').WriteOnly()                                                         // by kind and name
	cashes   = fold.NewTable[log.Offset]('c').WriteOnly()                                                    // of deposits and withdrawals, by account and name
	placed   = fold.NewTable[[]facts.Place]('d').WriteOnly()                                                 // by the offset of what says where messages were placed
)

// by is what an index finds by.
type by byte

const (
	byTime        by = 't' // class
	byOpen        by = 'o' // class; until it is decided, or a message delivered
	byUnpaid      by = 'z' // class and outcome: what came to nothing, or is parked
	byPayer       by = 'p'
	byPayee       by = 'q'
	byReference   by = 'r'
	byParent      by = 'f'
	byParticipant by = 'n'
	byProducer    by = 'P'
	byTopic       by = 'T'
	byKey         by = 'k'
	byEvent       by = 'e'
	bySubject     by = 's'
	byRefund      by = 'R' // the name of a refund: unique under its payment alone
)

func indexPrefix(b by, value string) []byte {
	return lists.Value(append(make([]byte, 0, 64), byte(b)), value)
}

// note puts a thing into an index. An index row is written once, where the thing began, and does not move.
func note(rows fold.Rows, b by, value string, id []byte, t *thing) {
	index.Put(rows, indexKey(b, value, t), id)
}

func indexKey(b by, value string, t *thing) string {
	return string(lists.Append(indexPrefix(b, value), t.BegunMs, t.BegunAt, 0))
}

func partKey(id log.ID, action string) string { return string(id[:]) + action }

func offsetKey(at log.Offset) string {
	return string(binary.BigEndian.AppendUint64(nil, uint64(at)))
}
