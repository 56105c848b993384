package log

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// Fingerprint is what tells a repeat from another thing under the same id or name: 16 bytes of
// the SHA-256 of the parsed meaning.
type Fingerprint [16]byte

// FingerprintOf returns the fingerprint of parts, each written with its length, so that no two lists
// of parts look alike. Leave out what does not change the meaning: times, trace context, waits, field order.
func FingerprintOf(parts ...string) Fingerprint {
	var room [fingerprintRoom]byte
	b := room[:0]
	for _, part := range parts {
		b = appendPart(b, part)
	}
	return FingerprintParts{b}.Fingerprint()
}

// fingerprintRoom is what the parts of most things fit in.
const fingerprintRoom = 512

// FingerprintParts are the parts of a fingerprint, one after the other, for who would make a list only to take it apart.
type FingerprintParts struct{ bytes []byte }

// Add adds a part.
func (p *FingerprintParts) Add(part string) {
	if p.bytes == nil {
		p.bytes = make([]byte, 0, fingerprintRoom)
	}
	p.bytes = appendPart(p.bytes, part)
}

func appendPart(b []byte, part string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(part))), part...)
}

// Fingerprint returns the fingerprint of what was added.
func (p FingerprintParts) Fingerprint() (f Fingerprint) {
	sum := sha256.Sum256(p.bytes)
	copy(f[:], sum[:])
	return f
}

// AppendText appends a fingerprint as hex. The error is nil.
func (f Fingerprint) AppendText(b []byte) ([]byte, error) { return hex.AppendEncode(b, f[:]), nil }

// MarshalText writes a fingerprint as hex.
func (f Fingerprint) MarshalText() ([]byte, error) { return f.AppendText(nil) }

// UnmarshalText reads what MarshalText wrote.
func (f *Fingerprint) UnmarshalText(b []byte) error {
	if len(b) != hex.EncodedLen(len(f)) {
		return fmt.Errorf("log: %d characters are no fingerprint", len(b))
	}
	if _, err := hex.Decode(f[:], b); err != nil {
		return fmt.Errorf("log: fingerprint: %w", err)
	}
	return nil
}

// MarshalBinary keeps fingerprints at 16 bytes in stored rows.
func (f Fingerprint) MarshalBinary() ([]byte, error) { return f[:], nil }

// UnmarshalBinary reads what MarshalBinary wrote.
func (f *Fingerprint) UnmarshalBinary(b []byte) error {
	if copy(f[:], b) != len(f) || len(b) != len(f) {
		return fmt.Errorf("log: %d bytes are no fingerprint", len(b))
	}
	return nil
}
