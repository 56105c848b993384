package importer

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/saga/accounts"
)

// lineMax is the longest line that is read; a longer one is rejected.
const lineMax = 64 << 10

// ErrHeader: the first line is not PaySim's header. Is it the right file?
var ErrHeader = errors.New("importer: not a file with PaySim's columns")

// columns are the ones that are used, out of PaySim's; the others may be there or not, and hold anything.
var columns = []string{"type", "amount", "nameOrig", "oldbalanceOrg", "nameDest", "oldbalanceDest"}

const (
	colType = iota
	colAmount
	colNameOrig
	colOldOrig
	colNameDest
	colOldDest
)

// row is one line of the file: a payment, and the accounts that are to be open before it.
type row struct {
	line         int
	payer, payee string
	amount       int64
	openings     []opening

	// Of the graph, guarded by its lock.
	waits    int    // earlier rows and openings that it waits for
	next     []*row // what waits for it
	rejected string // why it cannot start at all
	conflict bool   // rejected because remit has something else under its id

	// Of the stream that has it; a row is in one place at a time.
	sent  bool // it was sent before and nothing is known of it: what it now is may be this run's work
	fails failing
}

// opening is an account that is first seen in a row.
type opening struct {
	account string
	deposit int64 // 0 means none
}

// rowError rejects a line.
type rowError struct {
	line   int
	reason string
}

func (e *rowError) Error() string { return fmt.Sprintf("importer: line %d: %s", e.line, e.reason) }

// rowReader reads rows of a file, line by line.
type rowReader struct {
	in       *bufio.Reader
	currency accounts.Currency
	line     int
	width    int   // fields in the header
	at       []int // of columns, in a line
	seen     map[string]struct{}
	read     int64 // bytes
	fields   []string
}

func newRowReader(in io.Reader, currency accounts.Currency) (*rowReader, error) {
	r := &rowReader{in: bufio.NewReaderSize(in, lineMax), currency: currency, seen: map[string]struct{}{}}
	text, err := r.nextLine()
	if err == io.EOF {
		return nil, fmt.Errorf("%w: it is empty", ErrHeader)
	}
	if e, ok := errors.AsType[*rowError](err); ok {
		return nil, fmt.Errorf("%w: line 1: %s", ErrHeader, e.reason)
	}
	if err != nil {
		return nil, err
	}
	header, err := r.split(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")))
	if err != nil {
		return nil, fmt.Errorf("%w: line 1: %w", ErrHeader, err)
	}
	for _, name := range columns {
		i := slices.Index(header, name)
		if i < 0 {
			return nil, fmt.Errorf("%w: line 1 has no column %q", ErrHeader, name)
		}
		r.at = append(r.at, i)
	}
	r.width = len(header)
	return r, nil
}

// next returns the next row. A *rowError rejects its line, and the next one can be read; io.EOF ends the file.
func (r *rowReader) next() (*row, error) {
	for {
		text, err := r.nextLine()
		if err != nil {
			return nil, err
		}
		if len(text) == 0 {
			continue // an empty line is no row
		}
		fields, err := r.split(text)
		if err != nil {
			return nil, r.rejectf("%v", err)
		}
		if len(fields) != r.width {
			return nil, r.rejectf("it has %d columns, the header has %d", len(fields), r.width)
		}
		return r.parse(fields)
	}
}

func (r *rowReader) rejectf(format string, args ...any) error {
	return &rowError{r.line, fmt.Sprintf(format, args...)}
}

// nextLine returns the next line without its end; it is overwritten by the next call.
func (r *rowReader) nextLine() ([]byte, error) {
	r.line++
	text, err := r.in.ReadSlice('\n')
	r.read += int64(len(text))
	if err == bufio.ErrBufferFull {
		for err == bufio.ErrBufferFull {
			text, err = r.in.ReadSlice('\n')
			r.read += int64(len(text))
		}
		if err == nil || err == io.EOF {
			err = r.rejectf("it is longer than %d bytes", lineMax)
		}
		return nil, err
	}
	if err == io.EOF && len(text) > 0 {
		err = nil
	}
	return bytes.TrimSuffix(bytes.TrimSuffix(text, []byte("\n")), []byte("\r")), err
}

// split returns the fields of a line. A quoted field does not go on in the next line: names have no line ends.
func (r *rowReader) split(text []byte) ([]string, error) {
	r.fields = r.fields[:0]
	if bytes.IndexByte(text, '"') < 0 {
		for field := range bytes.SplitSeq(text, []byte(",")) {
			r.fields = append(r.fields, string(field))
		}
		return r.fields, nil
	}
	c := csv.NewReader(bytes.NewReader(text))
	c.FieldsPerRecord = -1
	fields, err := c.Read()
	if e, ok := errors.AsType[*csv.ParseError](err); ok {
		err = e.Err // its line is not the file's
	}
	return fields, err
}

func (r *rowReader) parse(fields []string) (*row, error) {
	get := func(c int) string { return fields[r.at[c]] }
	x := &row{line: r.line, payer: get(colNameOrig), payee: get(colNameDest)}
	for _, name := range []string{x.payer, x.payee} {
		if _, isID := log.ParseID(name); !isID && !log.IsName(name) {
			return nil, r.rejectf("%.140q is no name of an account: %s", name, log.NamePattern)
		}
	}
	if x.payer == x.payee {
		return nil, r.rejectf("%s pays itself", x.payer)
	}
	var err error
	if x.amount, err = r.amount("amount", get(colAmount)); err != nil {
		return nil, err
	}
	if x.amount == 0 {
		return nil, r.rejectf("amount: %q is nothing to pay", get(colAmount))
	}
	if x.openings, err = r.openings(x, get(colOldOrig), get(colOldDest)); err != nil {
		return nil, err
	}
	switch kind := get(colType); kind {
	case "PAYMENT", "TRANSFER", "CASH_OUT", "DEBIT":
	case "CASH_IN":
		x.payer, x.payee = x.payee, x.payer
	default:
		return nil, r.rejectf("type: %.40q is not one of PAYMENT, TRANSFER, CASH_OUT, DEBIT, CASH_IN", kind)
	}
	for _, o := range x.openings { // a rejected row opens nothing: the next one that names the account does
		r.seen[o.account] = struct{}{}
	}
	return x, nil
}

// openings are the accounts that are first seen in x, before its payer and payee are put in their places.
func (r *rowReader) openings(x *row, oldOrig, oldDest string) (all []opening, err error) {
	for _, side := range []struct{ column, name, balance string }{
		{"oldbalanceOrg", x.payer, oldOrig},
		{"oldbalanceDest", x.payee, oldDest},
	} {
		if _, ok := r.seen[side.name]; ok {
			continue
		}
		o := opening{account: side.name}
		if !strings.HasPrefix(side.name, "M") { // merchants open empty
			if o.deposit, err = r.amount(side.column, side.balance); err != nil {
				return nil, err
			}
		}
		all = append(all, o)
	}
	return all, nil
}

// amount reads an amount exactly (I3).
func (r *rowReader) amount(column, s string) (int64, error) {
	n, err := accounts.ParseScientific(s, r.currency)
	if err != nil {
		return 0, r.rejectf("%s: %s", column, strings.TrimPrefix(err.Error(), accounts.ErrAmount.Error()+": "))
	}
	return n, nil
}
