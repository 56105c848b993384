package when

import (
	"fmt"

	cesql "github.com/cloudevents/sdk-go/sql/v2"
	"github.com/cloudevents/sdk-go/sql/v2/utils"
	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/cloudevents/sdk-go/v2/types"

	"github.com/remitlog/remit/log"
)

// view is the event that an expression sees: remit's own, without being converted. It passes through the library's nodes as the context of an event
// and comes out in attribute and exists, which alone read events.
type view struct {
	event.EventContext // none: nobody asks it
	e                  *log.Event
	extra              Attributes
}

// get returns the value of an attribute as CESQL has it: a string, int32 or bool; nil if it is absent.
func (v *view) get(name string) any {
	if value, ok := v.extra.get(name); ok {
		return value
	}
	e := v.e
	text := ""
	switch name {
	case "specversion":
		text = event.CloudEventsVersionV1
	case "id":
		text = e.ID
	case "source":
		text = e.Source
	case "type":
		text = e.Type
	case "subject":
		text = e.Subject
	case "time":
		if !e.Time.IsZero() {
			text = types.FormatTime(e.Time)
		}
	case "datacontenttype":
		text = e.DataContentType
	case "dataschema":
		text = e.DataSchema
	case "partitionkey":
		text = e.Key
	case "correlationid":
		text = e.Correlation
	case "causationid":
		text = e.Causation
	case "traceparent":
		text = e.TraceParent
	case "recordedtime":
		if !e.RecordedTime.IsZero() {
			text = types.FormatTime(e.RecordedTime)
		}
	default:
		return extension(e.Extensions[name])
	}
	if text == "" {
		return nil
	}
	return text
}

// extension returns the value of one that Event has no field for: what CESQL has no type for is the text that it is on the wire.
func extension(value any) any {
	switch value.(type) {
	case nil, string, int32, bool:
		return value
	}
	text, err := types.Format(value)
	if err != nil {
		return nil // no value that an event may have
	}
	return text
}

// attribute is the value of one.
type attribute string

func (a attribute) Evaluate(e event.Event) (any, error) {
	value := e.Context.(*view).get(string(a))
	if value == nil {
		return false, &MissingError{string(a)}
	}
	return value, nil
}

// exists is whether there is one.
type exists string

func (x exists) Evaluate(e event.Event) (any, error) {
	return e.Context.(*view).get(string(x)) != nil, nil
}

// like is x LIKE pattern.
type like struct {
	x       cesql.Expression
	pattern pattern
}

func (l like) Evaluate(e event.Event) (any, error) {
	value, err := l.x.Evaluate(e)
	if err != nil {
		return false, err
	}
	value, err = utils.Cast(value, cesql.StringType)
	if err != nil {
		return false, err
	}
	text := value.(string)
	if len(text) > ValueMax {
		return false, fmt.Errorf("LIKE is given %d bytes, at most %d are taken", len(text), ValueMax)
	}
	return l.pattern.matches(text), nil
}

// call is a function with its arguments. The library's own looks the function up each time, and bounds nothing.
type call struct {
	fn   cesql.Function
	args []cesql.Expression
}

func (c call) Evaluate(e event.Event) (any, error) {
	args := make([]any, len(c.args))
	size := 0
	for i, arg := range c.args {
		value, err := arg.Evaluate(e)
		if err != nil {
			return zero(c.fn.ReturnType()), err
		}
		if value, err = utils.Cast(value, *c.fn.ArgType(i)); err != nil {
			return zero(c.fn.ReturnType()), err
		}
		if text, ok := value.(string); ok {
			size += len(text)
		}
		args[i] = value
	}
	if size > ValueMax {
		return zero(c.fn.ReturnType()), fmt.Errorf("%s is given %d bytes, at most %d are taken", c.fn.Name(), size, ValueMax)
	}
	return c.fn.Run(e, args)
}

// zero is what an expression is worth beside an error.
func zero(t cesql.Type) any {
	switch t {
	case cesql.IntegerType:
		return int32(0)
	case cesql.StringType:
		return ""
	case cesql.BooleanType, cesql.AnyType:
		return false
	default:
		panic(fmt.Sprintf("when: unknown type %d", t))
	}
}
