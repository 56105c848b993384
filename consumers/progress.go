package consumers

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"strings"

	"github.com/remitlog/remit/log"
)

// progressMax is the longest progress, in bytes of its text: brokers keep no more than 4096 beside an offset by default.
const progressMax = 4000

// progressVersion begins the text. Other consumers put other things beside their offsets.
const progressVersion = "remit1:"

// progress says which records are done beyond the lowest unfinished one. It is committed beside the offset, so that a crash does not repeat what
// is done because one key fails. It is stored:
//
//	"remit1:" base64url( uvarints: base, next-base, then for each hole: offset - the one before or base, failures )
//
// Everything from base to before next is done, but for the holes.
type progress struct {
	base, next log.Offset
	holes      map[log.Offset]int // and how often each has failed
}

// done reports whether a record is done, and if not how often it has failed.
func (g *progress) done(offset log.Offset) (done bool, failures int) {
	if offset < g.base || offset >= g.next {
		return false, 0
	}
	failures, hole := g.holes[offset]
	return !hole, failures
}

// progress is what a partition's says; empty when nothing is beyond its position. When there are more holes than fit, it ends at the
// first that does not.
func (p *partition) progress() string {
	if len(p.window) == 0 {
		return ""
	}
	base := p.window[0].offset
	var holes []byte
	last, next := base, p.next
	for _, a := range p.window {
		if a.done {
			continue
		}
		hole := binary.AppendUvarint(nil, uint64(a.offset-last))
		hole = binary.AppendUvarint(hole, uint64(a.failures))
		if len(progressVersion)+base64.RawURLEncoding.EncodedLen(2*binary.MaxVarintLen64+len(holes)+len(hole)) > progressMax {
			next = a.offset
			break
		}
		holes = append(holes, hole...)
		last = a.offset
	}
	b := binary.AppendUvarint(nil, uint64(base))
	b = binary.AppendUvarint(b, uint64(next-base))
	return progressVersion + base64.RawURLEncoding.EncodeToString(append(b, holes...))
}

var errProgress = errors.New("consumers: progress cut short")

// parseProgress reads one. What is none, or another's, says that nothing is done.
func parseProgress(text string) (g progress) {
	rest, ok := strings.CutPrefix(text, progressVersion)
	if !ok {
		return progress{}
	}
	b, err := base64.RawURLEncoding.DecodeString(rest)
	read := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			err = errProgress
			return 0
		}
		b = b[n:]
		return v
	}
	g.base = log.Offset(read())
	g.next = g.base + log.Offset(read())
	g.holes = map[log.Offset]int{}
	for last := g.base; err == nil && len(b) > 0; {
		last += log.Offset(read())
		g.holes[last] = int(read())
	}
	if err != nil || g.base < 0 || g.next < g.base {
		return progress{}
	}
	return g
}
