package when

import (
	"fmt"
	"strings"
	"unicode/utf8"

	cesql "github.com/cloudevents/sdk-go/sql/v2"
	sqlerrors "github.com/cloudevents/sdk-go/sql/v2/errors"
	"github.com/cloudevents/sdk-go/sql/v2/function"
	"github.com/cloudevents/sdk-go/sql/v2/runtime"
	"github.com/cloudevents/sdk-go/v2/event"
)

// resolve returns the function of that name and number of arguments; nil if there is none.
func resolve(name string, args int) cesql.Function {
	for _, fn := range ownFunctions {
		if fn.Name() == name && fn.Arity() == args {
			return fn
		}
	}
	return runtime.ResolveFunction(name, args)
}

// ownFunctions are those of the specification that count characters. The library's count bytes, and one of them panics.
var ownFunctions = []cesql.Function{
	own("LENGTH", cesql.IntegerType, func(s string, _ []int) (any, error) { return int32(utf8.RuneCountInString(s)), nil }),
	own("LEFT", cesql.StringType, func(s string, n []int) (any, error) {
		if n[0] < 0 {
			return s, functionError("LEFT takes no negative number, %d", n[0])
		}
		return cut(s, 0, n[0]), nil
	}, cesql.IntegerType),
	own("RIGHT", cesql.StringType, func(s string, n []int) (any, error) {
		if n[0] < 0 {
			return s, functionError("RIGHT takes no negative number, %d", n[0])
		}
		length := utf8.RuneCountInString(s)
		return cut(s, max(length-n[0], 0), length), nil
	}, cesql.IntegerType),
	own("SUBSTRING", cesql.StringType, func(s string, n []int) (any, error) { return substring(s, n[0], len(s)) }, cesql.IntegerType),
	own("SUBSTRING", cesql.StringType, func(s string, n []int) (any, error) { return substring(s, n[0], n[1]) }, cesql.IntegerType, cesql.IntegerType),
}

// own makes a function of a text and numbers.
func own(name string, returns cesql.Type, fn func(s string, n []int) (any, error), numbers ...cesql.Type) cesql.Function {
	return function.NewFunction(name, append([]cesql.Type{cesql.StringType}, numbers...), nil, returns, func(_ event.Event, args []any) (any, error) {
		var n []int
		for _, arg := range args[1:] {
			n = append(n, int(arg.(int32)))
		}
		return fn(args[0].(string), n)
	})
}

func functionError(format string, args ...any) error {
	return sqlerrors.NewFunctionEvaluationError(fmt.Errorf(format, args...))
}

// substring is n characters of s, or as many as there are, from the at-th on: from 1, or from the end if negative.
func substring(s string, at, n int) (any, error) {
	length := utf8.RuneCountInString(s)
	switch {
	case n < 0:
		return "", functionError("SUBSTRING takes no negative length, %d", n)
	case at == 0:
		return "", nil
	case at > length || at < -length:
		return "", functionError("SUBSTRING from %d on: it has %d characters", at, length)
	case at < 0:
		at += length
	default:
		at--
	}
	return cut(s, at, at+n), nil
}

// cut is the characters of s from one to another; either may lie beyond its end.
func cut(s string, from, to int) string {
	begin, n := len(s), 0
	for i := range s {
		if n == from {
			begin = i
		}
		if n == to {
			return s[min(begin, i):i]
		}
		n++
	}
	return s[begin:]
}

// pattern is what follows LIKE: characters, oneOf and manyOf.
type pattern []rune

const (
	oneOf  rune = -1 // _
	manyOf rune = -2 // %
)

func newPattern(text string) pattern {
	var p pattern
	for text != "" {
		r, size := utf8.DecodeRuneInString(text)
		switch {
		case strings.HasPrefix(text, `\_`), strings.HasPrefix(text, `\%`):
			r, size = rune(text[1]), 2
		case r == '_':
			r = oneOf
		case r == '%':
			r = manyOf
		}
		p = append(p, r)
		text = text[size:]
	}
	return p
}

// matches is the usual one: when it gets stuck, the last % takes a character more. It takes at most as many steps as both have characters, multiplied.
func (p pattern) matches(s string) bool {
	at, back, rest := 0, -1, "" // back is where the last % stands, rest what is to match behind it
	for s != "" {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case at < len(p) && p[at] == manyOf:
			back, rest = at, s
			at++
		case at < len(p) && (p[at] == oneOf || p[at] == r):
			at++
			s = s[size:]
		case back >= 0:
			_, size = utf8.DecodeRuneInString(rest)
			rest = rest[size:]
			at, s = back+1, rest
		default:
			return false
		}
	}
	for at < len(p) && p[at] == manyOf {
		at++
	}
	return at == len(p)
}
