package consumers

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"strings"
	"time"

	"github.com/remitlog/remit/log"
)

// progressMax is the longest progress, in bytes of its text: brokers keep no more than 4096 beside an offset by default.
const progressMax = 4000

// progressVersion begins the text. Other consumers put other things beside their offsets. progressFirst was the version before, which had no
// times; it is read.
const (
	progressVersion = "remit2:"
	progressFirst   = "remit1:"
)

// progress says which records are done beyond the lowest unfinished one. It is committed beside the offset, so that a crash does not repeat what
// is done because one key fails. It is stored:
//
//	"remit2:" base64url( uvarints: base, next-base, then for each hole: offset - the one before or base, failures, and if
//	there are any, how long it was tried, in ms )
//
// Everything from base to before next is done, but for the holes.
type progress struct {
	base, next log.Offset
	holes      map[log.Offset]failed // and how each has failed
}

// Done reports whether a record is done, by what a Consumer has committed beside the offset of its partition.
func Done(progress string, offset log.Offset) bool {
	g := parseProgress(progress)
	done, _ := g.done(offset)
	return done
}

// done reports whether a record is done, and if not how often it has failed.
func (g *progress) done(offset log.Offset) (done bool, f failed) {
	if offset < g.base || offset >= g.next {
		return false, failed{}
	}
	f, hole := g.holes[offset]
	return !hole, f
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
		hole = binary.AppendUvarint(hole, uint64(a.failed.times))
		if a.failed.times > 0 {
			hole = binary.AppendUvarint(hole, uint64(a.failed.spent.Milliseconds()))
		}
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

// spentMax keeps what another has written within a duration: a hundred years, in ms.
const spentMax = 100 * 365 * 24 * 60 * 60 * 1000

var errProgress = errors.New("consumers: progress cut short")

// parseProgress reads one. What is none, or another's, says that nothing is done.
func parseProgress(text string) (g progress) {
	rest, timed := strings.CutPrefix(text, progressVersion)
	if !timed {
		var ok bool
		if rest, ok = strings.CutPrefix(text, progressFirst); !ok {
			return progress{}
		}
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
	g.holes = map[log.Offset]failed{}
	for last := g.base; err == nil && len(b) > 0; {
		last += log.Offset(read())
		f := failed{times: int(read())}
		if timed && f.times > 0 {
			f.spent = time.Duration(min(read(), spentMax)) * time.Millisecond
		}
		g.holes[last] = f
	}
	if err != nil || g.base < 0 || g.next < g.base {
		return progress{}
	}
	return g
}
