package log

// Scratch is room for records that are made together, appended, and forgotten: a turn's. It is used again after Reset, so that a record of a
// few hundred bytes costs no allocation of its own. The zero Scratch is ready; one goroutine at a time may use it.
type Scratch struct {
	bytes   []byte
	headers []Header
}

const (
	scratchBytesMin   = 4 << 10
	scratchHeadersMin = 64
	// ScratchKeepMax is how many bytes a Scratch keeps over a Reset, at most.
	ScratchKeepMax = 64 << 10
)

// Reset ends what was made since the last one: its bytes are used again.
func (s *Scratch) Reset() {
	if cap(s.bytes) > ScratchKeepMax {
		*s = Scratch{}
		return
	}
	clear(s.headers)
	s.bytes, s.headers = s.bytes[:0], s.headers[:0]
}

// Record is e.Record, in s. The record is good until Reset.
func (s *Scratch) Record(e *Event, p Partition) Record {
	var few [8]string
	names := e.names(few[:0])
	bytes, headers := e.recordLen(names), e.count()+len(names)
	if cap(s.headers)-len(s.headers) < headers {
		s.headers = make([]Header, 0, max(headers, scratchHeadersMin, 2*cap(s.headers)))
	}
	n := len(s.headers)
	w := recordWriter{buf: s.room(bytes), headers: s.headers[n : n : n+headers]}
	r := e.write(&w, names, p)
	s.headers = s.headers[:n+len(w.headers)]
	if !s.take(w.buf) {
		s.bytes = s.bytes[:cap(s.bytes)] // the values before it moved are still there
	}
	return r
}

// Bytes lets write append to room in s, and returns what it has appended. That is good until Reset.
func (s *Scratch) Bytes(write func([]byte) []byte) []byte {
	b := write(s.room(0))
	s.take(b)
	return b[:len(b):len(b)]
}

// room returns a slice without length, of at least so much room: all that is left.
func (s *Scratch) room(n int) []byte {
	if left := cap(s.bytes) - len(s.bytes); left < n || left == 0 {
		s.bytes = make([]byte, 0, max(n, scratchBytesMin, min(2*cap(s.bytes), ScratchKeepMax)))
	}
	return s.bytes[len(s.bytes):]
}

// take takes what was appended to room, and reports whether it is there: what has outgrown it is elsewhere.
func (s *Scratch) take(b []byte) bool {
	if cap(b) != cap(s.bytes)-len(s.bytes) {
		return false
	}
	s.bytes = s.bytes[:len(s.bytes)+len(b)]
	return true
}
