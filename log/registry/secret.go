package registry

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// SecretOverlap is how long the secret before signs too, from the event that changed it on.
const SecretOverlap = 24 * time.Hour

// Secret signs calls. There are two while it rotates: when it changes, the one before signs too for SecretOverlap.
//
// It is written, and never answered: what prints it, or logs it, has only whether there is one. In the JSON of a fact it is a string when there
// is nothing but Now, as it was before secrets could rotate, else an object of now, before and beforeUntil.
type Secret struct {
	_      struct{} `cbor:",toarray"`
	Now    string   `json:"-" cbor:"now"` // empty: calls are not signed
	Before string   `json:"-" cbor:"before"`
	// BeforeUntil is until when Before signs, in Unix milliseconds.
	BeforeUntil int64 `json:"-" cbor:"beforeUntil"`
}

// At returns the secrets that sign at a time, the newest first.
func (s Secret) At(now time.Time) []string {
	switch {
	case s.Now == "":
		return nil
	case s.Before != "" && now.UnixMilli() < s.BeforeUntil:
		return []string{s.Now, s.Before}
	default:
		return []string{s.Now}
	}
}

// PrecheckSecret returns what signs the pre-checks of a producer: their own secret, or without one that of the checks.
func (p Producer) PrecheckSecret() Secret {
	if p.Precheck.Secret.IsSet() {
		return p.Precheck.Secret
	}
	return p.Check.Secret
}

// IsSet reports whether calls are signed.
func (s Secret) IsSet() bool { return s.Now != "" }

// change returns the secret that is to be signed with from now on; the empty one signs nothing more, and at once.
func (s Secret) change(to string, now time.Time) Secret {
	switch {
	case to == s.Now:
		return s
	case to == "" || s.Now == "":
		return Secret{Now: to}
	default:
		return Secret{Now: to, Before: s.Now, BeforeUntil: now.Add(SecretOverlap).UnixMilli()}
	}
}

// String says whether there is one.
func (s Secret) String() string {
	if s.IsSet() {
		return "(secret)"
	}
	return "(none)"
}

// Format prints String under every verb: %+v and %#v would print what is in it.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// LogValue is String.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// rotating is the JSON of a secret that has one before it.
type rotating struct {
	Now         string `json:"now"`
	Before      string `json:"before"`
	BeforeUntil int64  `json:"beforeUntil"`
}

// MarshalJSONTo writes the JSON of a fact. encoding/json, which does not know it, writes nothing of a secret.
func (s Secret) MarshalJSONTo(enc *jsontext.Encoder) error {
	if s.Before == "" {
		return enc.WriteToken(jsontext.String(s.Now))
	}
	return json.MarshalEncode(enc, rotating{s.Now, s.Before, s.BeforeUntil})
}

// UnmarshalJSONFrom reads both forms.
func (s *Secret) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if dec.PeekKind() == '"' {
		*s = Secret{}
		return json.UnmarshalDecode(dec, &s.Now)
	}
	var r rotating
	if err := json.UnmarshalDecode(dec, &r); err != nil {
		return err
	}
	*s = Secret{Now: r.Now, Before: r.Before, BeforeUntil: r.BeforeUntil}
	return nil
}
