package api

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/remitlog/remit/log"
)

// Ref is what a caller calls a thing: a remit id, or a name of their own. One of the two is set.
type Ref struct {
	ID   log.ID
	Name string
}

// ParseRef reads a UUIDv8 as an id and what matches log.NamePattern as a name. Else 400 invalid_id
// with the field.
func ParseRef(field, s string) (Ref, error) {
	if id, ok := log.ParseID(s); ok {
		return Ref{ID: id}, nil
	}
	if log.IsName(s) {
		return Ref{Name: s}, nil
	}
	if len(s) > 140 {
		s = s[:140] + "…"
	}
	return Ref{}, NewProblem(CodeInvalidID, "%s: %q is neither a remit id (a UUIDv8) nor a name in %s", field, s, log.NamePattern).With("field", field)
}

// RequestRef returns the id of a call that creates: the body's, or Idempotency-Key in its
// place. 400 id_required if there is neither, id_mismatch if they do not agree.
func RequestRef(r *http.Request, bodyID string) (Ref, error) {
	key, err := idempotencyKey(r)
	if err != nil {
		return Ref{}, err
	}
	return NewRef(key, bodyID)
}

// idempotencyKey returns the header, "" if there is none. Two that differ stand for two things, and to take either would be to guess.
func idempotencyKey(r *http.Request) (string, error) {
	keys := r.Header.Values("Idempotency-Key")
	for _, key := range keys {
		if key != keys[0] {
			return "", NewProblem(CodeIDMismatch, "Idempotency-Key is there as %q and as %q; send one of them", keys[0], key).With("field", "id")
		}
	}
	return r.Header.Get("Idempotency-Key"), nil
}

// NewRef is RequestRef for a line of NDJSON, whose idempotencyKey is "". A key in quotes is read as one
// without: the IETF's draft has it as a structured string.
func NewRef(idempotencyKey, bodyID string) (Ref, error) {
	if n := len(idempotencyKey); n >= 2 && idempotencyKey[0] == '"' && idempotencyKey[n-1] == '"' {
		idempotencyKey = idempotencyKey[1 : n-1]
	}
	switch {
	case idempotencyKey == "" && bodyID == "":
		return Ref{}, NewProblem(CodeIDRequired, "give an id of your own, as id in the body or as Idempotency-Key: with it a repeat is safe").With("field", "id")
	case idempotencyKey == "":
		return ParseRef("id", bodyID)
	case bodyID == "" || bodyID == idempotencyKey:
		return ParseRef("Idempotency-Key", idempotencyKey)
	}
	key, err := ParseRef("Idempotency-Key", idempotencyKey)
	if err != nil {
		return Ref{}, err
	}
	body, err := ParseRef("id", bodyID)
	if err != nil {
		return Ref{}, err
	}
	if key != body { // ids are compared as ids: letter case is nothing
		return Ref{}, NewProblem(CodeIDMismatch, "Idempotency-Key is %q and id is %q; send one of them", key, body).With("field", "id")
	}
	return body, nil
}

// IsID reports whether the caller gave an id and not a name.
func (ref Ref) IsID() bool { return !ref.ID.IsZero() }

func (ref Ref) String() string {
	if ref.IsID() {
		return ref.ID.String()
	}
	return ref.Name
}

// IDAheadMax is how far ahead of the server's clock an id may say that it was made.
const IDAheadMax = 24 * time.Hour

// CheckNew looks at an id, which the caller gave as field, that something is to be made under: 400 wrong_slot if it is not in the slot of
// its routing key, which keyField names; 400 invalid_id if it is of a time more than IDAheadMax ahead. New ids are known to be new by lying beyond the old ones: one of a
// far day would make each that comes before it dearer, for ever.
func (ref Ref) CheckNew(field, keyField, key string) error {
	if !ref.IsID() {
		return nil
	}
	got, want := ref.ID.Slot(), log.SlotOf(key)
	instead := fmt.Sprintf("use a name: %q", "my-"+ref.ID.String())
	if field != "id" { // what is made has its name elsewhere
		instead = "leave " + field + " out"
	}
	if at := ref.ID.Time(); got == want && time.Until(at) > IDAheadMax {
		return NewProblem(CodeInvalidID, "%s: %s says that it was made at %s, which is more than %s ahead; set the clock right that it was made by, and make another",
			field, ref.ID, at.Format(time.RFC3339), Duration(IDAheadMax)).With("field", field)
	}
	if got == want {
		return nil
	}
	return NewProblem(CodeWrongSlot, "id %s is in slot %d, but its %s %q is in slot %d; make the id for that slot, or %s",
		ref.ID, got, keyField, strings.ToValidUTF8(key, "�"), want, instead).
		With("field", field).With("slot", got).With("wantSlot", want)
}
