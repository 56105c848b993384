package when

import (
	"errors"
	"fmt"
	"math"

	cesql "github.com/cloudevents/sdk-go/sql/v2"
	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/remitlog/remit/log"
)

// Limits of a condition.
const (
	// TextMax is the longest text, in bytes.
	TextMax = 4096
	// DepthMax is how deep parentheses, calls and unary operators nest.
	DepthMax = 64
	// ValueMax is the longest text that a function takes or makes, in bytes; past it the condition has an error.
	ValueMax = 2 * log.EventAttributeMax
)

// ErrSyntax: a text is no condition. The *[SyntaxError] around it says where.
var ErrSyntax = errors.New("when: not a condition")

// SyntaxError says why a text does not compile, and where.
type SyntaxError struct {
	Character int    // from 1 on
	Detail    string // what is wrong there, and what would be right
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("%v: character %d: %s", ErrSyntax, e.Character, e.Detail)
}

func (e *SyntaxError) Unwrap() error { return ErrSyntax }

// Error says why a condition has no outcome for an event.
type Error struct {
	Condition string // its text
	Err       error
}

func (e *Error) Error() string { return fmt.Sprintf("when: %.200q: %v", e.Condition, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

// MissingError says that the event has no such attribute.
type MissingError struct{ Attribute string }

func (e *MissingError) Error() string {
	return fmt.Sprintf("the event has no attribute %q", e.Attribute)
}

// Missing reports whether a condition did not hold because the event has no such attribute.
func Missing(err error) bool {
	_, ok := errors.AsType[*MissingError](err)
	return ok
}

// Attributes are what a condition may ask for beside the event's own attributes, which they come before. A value beyond 32 bits is the nearest
// that fits, since CESQL has no longer integers.
type Attributes map[string]int64

// get returns an attribute as CESQL knows it.
func (a Attributes) get(name string) (int32, bool) {
	value, ok := a[name]
	return int32(max(math.MinInt32, min(value, math.MaxInt32))), ok
}

// Condition is a text that was compiled. Its methods may be called at once.
type Condition struct {
	text string
	root cesql.Expression // nil: always true
	uses map[string]bool
}

// Compile reads a text. An empty one is a condition that always holds.
//
// Errors: *[SyntaxError].
func Compile(text string) (*Condition, error) {
	c := &Condition{text: text, uses: map[string]bool{}}
	p, err := newParser(text, c.uses)
	if err != nil {
		return nil, err
	}
	if p.next.kind == tokenEnd {
		return c, nil
	}
	n, err := p.whole()
	if err != nil {
		return nil, err
	}
	if n.kind == cesql.IntegerType || n.kind == cesql.StringType {
		return nil, &SyntaxError{Character: 1, Detail: fmt.Sprintf("it is a value of type %s, and a condition is true or false; compare it with something", n.kind)}
	}
	c.root = n.Expression
	return c, nil
}

// String returns the text.
func (c *Condition) String() string { return c.text }

// Uses reports whether the text names an attribute.
func (c *Condition) Uses(attribute string) bool { return c.uses[attribute] }

// Holds reports whether the condition holds for e. After an error it does not; see the package comment for what that means.
//
// Errors: *[Error], in it *[MissingError] for an attribute that e does not have.
func (c *Condition) Holds(e *log.Event, extra Attributes) (bool, error) {
	if c.root == nil {
		return true, nil
	}
	value, err := evaluate(c.root, e, extra)
	if err != nil {
		return false, &Error{Condition: c.text, Err: err}
	}
	holds, ok := value.(bool)
	if !ok { // an attribute by itself
		return false, &Error{Condition: c.text, Err: fmt.Errorf("its value is %.50q, and neither TRUE nor FALSE", fmt.Sprint(value))}
	}
	return holds, nil
}

// evaluate returns an expression's value. What panics in the library has an error.
func evaluate(root cesql.Expression, e *log.Event, extra Attributes) (value any, err error) {
	defer func() {
		if r := recover(); r != nil {
			value, err = false, fmt.Errorf("it cannot be evaluated: %v", r)
		}
	}()
	return root.Evaluate(event.Event{Context: &view{e: e, extra: extra}})
}
