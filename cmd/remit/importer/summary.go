package importer

import (
	"cmp"
	"math/big"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/remitlog/remit/saga/accounts"
)

// Summary is what an import did. Rows are paid, refused or rejected; Replayed are those of the first two that an earlier import had
// done. The sums are of the whole file, whoever did it.
type Summary struct {
	Rows         int            `json:"rows"`
	Paid         int            `json:"paid"`
	Refused      map[string]int `json:"refused"`
	Rejected     []RejectedRow  `json:"rejected"` // the first RejectedMax of them
	PaidSum      string         `json:"paidSum"`
	DepositedSum string         `json:"depositedSum"`
	Replayed     int            `json:"replayed"`
	Seconds      float64        `json:"seconds"`

	// RejectedRows counts all of them.
	RejectedRows int `json:"-"`
	// Conflicts are rejected rows whose id, or whose account, stands for something else in remit.
	Conflicts int `json:"-"`
}

// RejectedRow is a row that is not taken.
type RejectedRow struct {
	Line   int    `json:"line"`
	Reason string `json:"reason"`
}

// RefusedRows counts the refused rows.
func (s Summary) RefusedRows() (n int) {
	for _, of := range s.Refused {
		n += of
	}
	return n
}

// tally counts outcomes.
type tally struct {
	mu              sync.Mutex
	currency        accounts.Currency
	summary         Summary
	paid, deposited big.Int // minor units; a file may sum to more than an account may hold
	bytes           int64   // read of the file
}

func (t *tally) init(c accounts.Currency) {
	t.currency = c
	t.summary = Summary{Refused: map[string]int{}, Rejected: []RejectedRow{}}
}

func (t *tally) add(r *row, o Outcome) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &t.summary
	s.Rows++
	if o.Replayed {
		s.Replayed++
	}
	switch o.Kind {
	case Paid:
		s.Paid++
		t.paid.Add(&t.paid, big.NewInt(r.amount))
	case Refused:
		s.Refused[o.Reason]++
	case Rejected:
		s.RejectedRows++
		if len(s.Rejected) < RejectedMax {
			s.Rejected = append(s.Rejected, RejectedRow{o.Line, o.Reason})
		}
	}
}

func (t *tally) deposit(minor int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.deposited.Add(&t.deposited, big.NewInt(minor))
}

func (t *tally) conflict() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.summary.Conflicts++
}

func (t *tally) readTo(bytes int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bytes = bytes
}

// Progress is how far an import is.
type Progress struct {
	Rows, Paid int
	Bytes      int64 // read of the file
}

// Progress says how far it is. It may be called at any time.
func (m *Import) Progress() Progress {
	m.tally.mu.Lock()
	defer m.tally.mu.Unlock()
	return Progress{m.tally.summary.Rows, m.tally.summary.Paid, m.tally.bytes}
}

func (m *Import) summary(start time.Time) Summary {
	t := &m.tally
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.summary
	s.PaidSum, s.DepositedSum = format(&t.paid, t.currency), format(&t.deposited, t.currency)
	s.Seconds = float64(time.Since(start).Milliseconds()) / 1000 // as it is written: 2.937, not 2.9370000000000003
	slices.SortFunc(s.Rejected, func(a, b RejectedRow) int { return cmp.Compare(a.Line, b.Line) })
	return s
}

// format is accounts.FormatAmount for sums of any size, not below zero.
func format(minor *big.Int, c accounts.Currency) string {
	exponent, _ := c.Exponent()
	digits := minor.String()
	if exponent == 0 {
		return digits
	}
	if short := exponent + 1 - len(digits); short > 0 {
		digits = strings.Repeat("0", short) + digits
	}
	point := len(digits) - exponent
	return digits[:point] + "." + digits[point:]
}
