package when

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	cesql "github.com/cloudevents/sdk-go/sql/v2"
	"github.com/cloudevents/sdk-go/sql/v2/expression"
)

// The grammar is that of CESQL 1.0, section 2. The library's own parser, made by ANTLR, is not used: it takes characters that it does not know
// for blanks and tells standard error of them, panics at some texts, takes seconds for others of 4,000 bytes, and tells no places.

// token is a word or sign of a text.
type token struct {
	kind tokenKind
	text string // a word in upper case, a string without its quotes
	at   int    // its first byte
}

type tokenKind uint8

const (
	tokenEnd tokenKind = iota + 1
	tokenSign
	tokenString
	tokenInteger
	tokenWord
)

func (t token) String() string {
	switch t.kind {
	case tokenEnd:
		return "the end"
	case tokenString:
		return fmt.Sprintf("the text %.50q", t.text)
	default:
		return fmt.Sprintf("%.50q", t.text)
	}
}

func (t token) is(text string) bool {
	return (t.kind == tokenSign || t.kind == tokenWord) && t.text == text
}

// node is an expression and the type of its value; AnyType is not known before there is an event.
type node struct {
	cesql.Expression
	kind cesql.Type
	// not says that it is NOT and its operand, without parentheses around them.
	not bool
}

// parser reads a text from the left to the right, one token ahead.
type parser struct {
	text  string
	at    int // the first byte behind next
	next  token
	depth int
	uses  map[string]bool // attributes that were named
}

func newParser(text string, uses map[string]bool) (*parser, error) {
	if len(text) > TextMax {
		return nil, &SyntaxError{Character: 1, Detail: fmt.Sprintf("it has %d bytes, at most %d are taken", len(text), TextMax)}
	}
	p := &parser{text: text, uses: uses}
	if !utf8.ValidString(text) {
		for i, r := range text {
			if r == utf8.RuneError {
				return nil, p.wrong(i, "it is not UTF-8 here")
			}
		}
	}
	return p, p.advance()
}

func (p *parser) wrong(at int, format string, args ...any) error {
	return &SyntaxError{Character: utf8.RuneCountInString(p.text[:at]) + 1, Detail: fmt.Sprintf(format, args...)}
}

// advance reads the next token.
func (p *parser) advance() error {
	for p.at < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.at]) >= 0 {
		p.at++
	}
	rest := p.text[p.at:]
	t := token{at: p.at}
	size := 0
	switch {
	case rest == "":
		t.kind = tokenEnd
	case rest[0] == '\'' || rest[0] == '"':
		var err error
		if t.text, size, err = p.quoted(rest); err != nil {
			return err
		}
		t.kind = tokenString
	case wordByte(rest[0]):
		for size < len(rest) && wordByte(rest[size]) {
			size++
		}
		t.kind, t.text = tokenInteger, strings.ToUpper(rest[:size])
		if strings.TrimLeft(rest[:size], "0123456789") != "" {
			t.kind = tokenWord
		}
	default:
		for _, sign := range []string{"!=", "<>", "<=", ">=", "(", ")", ",", "*", "/", "%", "+", "-", "=", "<", ">"} {
			if strings.HasPrefix(rest, sign) {
				t.kind, t.text, size = tokenSign, sign, len(sign)
				break
			}
		}
		if size == 0 {
			r, _ := utf8.DecodeRuneInString(rest)
			return p.wrong(p.at, "%q means nothing here; texts stand in '…'", r)
		}
	}
	p.at += size
	p.next = t
	return nil
}

func wordByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_'
}

// quoted reads a text in quotes. Before its own quote a backslash goes away; any other stays, since LIKE has a use for it.
func (p *parser) quoted(rest string) (text string, size int, err error) {
	quote := rest[0]
	for i := 1; i < len(rest); i++ {
		switch {
		case rest[i] == '\\' && i+1 < len(rest):
			i++
		case rest[i] == quote && i+1 < len(rest) && rest[i+1] == quote:
			return "", 0, p.wrong(p.at+i, "a quote within a text is written with a backslash before it, and not twice")
		case rest[i] == quote:
			return strings.ReplaceAll(rest[1:i], `\`+string(quote), string(quote)), i + 1, nil
		}
	}
	return "", 0, p.wrong(p.at, "the text that begins here does not end")
}

// accept reads the next token if it is the sign or word.
func (p *parser) accept(text string) (bool, error) {
	if !p.next.is(text) {
		return false, nil
	}
	return true, p.advance()
}

func (p *parser) expect(text string) error {
	if !p.next.is(text) {
		return p.wrong(p.next.at, "%q is expected, and not %s", text, p.next)
	}
	return p.advance()
}

// whole reads an expression that is the whole text.
func (p *parser) whole() (node, error) {
	n, err := p.logic()
	if err == nil && p.next.kind != tokenEnd {
		err = p.wrong(p.next.at, "an operator or the end is expected, and not %s", p.next)
	}
	return n, err
}

// enter counts a level of nesting; leave takes it back.
func (p *parser) enter() error {
	if p.depth++; p.depth > DepthMax {
		return p.wrong(p.next.at, "it nests deeper than %d levels", DepthMax)
	}
	return nil
}

func (p *parser) leave() { p.depth-- }

// logic reads a AND b, a OR b, a XOR b and what binds closer. The three bind alike, so that two of them side by side need parentheses to be read as
// they are meant.
func (p *parser) logic() (node, error) {
	n, err := p.comparison()
	first := ""
	for err == nil {
		op := p.next
		if op.kind != tokenWord || logics[op.text] == nil {
			return n, nil
		}
		if first != "" && op.text != first {
			return n, p.wrong(op.at, "%s beside %s: put one of them in parentheses, since they bind alike", op.text, first)
		}
		first = op.text
		n, err = p.join(n, p.comparison, cesql.BooleanType, logics[op.text])
	}
	return n, err
}

// joint makes one expression of two.
type joint func(left, right cesql.Expression) cesql.Expression

var logics = map[string]joint{"AND": expression.NewAndExpression, "OR": expression.NewOrExpression, "XOR": expression.NewXorExpression}

var comparisons = map[string]joint{
	"=": expression.NewEqualExpression, "!=": expression.NewNotEqualExpression, "<>": expression.NewNotEqualExpression,
	"<": expression.NewLessExpression, "<=": expression.NewLessOrEqualExpression,
	">": expression.NewGreaterExpression, ">=": expression.NewGreaterOrEqualExpression,
}

var sums = map[string]joint{"+": expression.NewSumExpression, "-": expression.NewDifferenceExpression}

var products = map[string]joint{
	"*": expression.NewMultiplicationExpression, "/": expression.NewDivisionExpression, "%": expression.NewModuleExpression,
}

func (p *parser) comparison() (node, error) {
	return p.chain(p.sum, comparisons, cesql.BooleanType)
}

func (p *parser) sum() (node, error) {
	return p.chain(p.product, sums, cesql.IntegerType)
}

func (p *parser) product() (node, error) {
	return p.chain(p.membership, products, cesql.IntegerType)
}

// chain reads operands with operators between them that bind alike, from the left.
func (p *parser) chain(operand func() (node, error), joints map[string]joint, kind cesql.Type) (node, error) {
	n, err := operand()
	for err == nil && p.next.kind == tokenSign && joints[p.next.text] != nil {
		if err = p.refuseNot(n); err == nil {
			n, err = p.join(n, operand, kind, joints[p.next.text])
		}
	}
	return n, err
}

// join reads an operator and its right operand.
func (p *parser) join(left node, operand func() (node, error), kind cesql.Type, with joint) (node, error) {
	if err := p.advance(); err != nil {
		return left, err
	}
	right, err := operand()
	if err != nil {
		return left, err
	}
	return node{Expression: with(left.Expression, right.Expression), kind: kind}, nil
}

// refuseNot refuses an operator behind NOT a, which binds closer than it reads.
func (p *parser) refuseNot(left node) error {
	if !left.not {
		return nil
	}
	return p.wrong(p.next.at, "NOT binds closer than %s: put parentheses around what NOT is for", p.next.text)
}

// membership reads a LIKE 'b', a IN (b, c) and the same with NOT.
func (p *parser) membership() (node, error) {
	n, err := p.unary()
	for err == nil && (p.next.is("NOT") || p.next.is("LIKE") || p.next.is("IN")) {
		if err = p.refuseNot(n); err != nil {
			return n, err
		}
		var not bool
		if not, err = p.accept("NOT"); err != nil {
			return n, err
		}
		switch {
		case p.next.is("LIKE"):
			n, err = p.like(n)
		case p.next.is("IN"):
			n, err = p.in(n)
		default:
			err = p.wrong(p.next.at, "LIKE or IN is expected behind NOT, and not %s", p.next)
		}
		if not && err == nil {
			n.Expression = expression.NewNotExpression(n.Expression)
		}
	}
	return n, err
}

func (p *parser) like(x node) (node, error) {
	if err := p.advance(); err != nil {
		return x, err
	}
	if p.next.kind != tokenString {
		return x, p.wrong(p.next.at, "a pattern in quotes is expected behind LIKE, and not %s", p.next)
	}
	n := node{Expression: like{x.Expression, newPattern(p.next.text)}, kind: cesql.BooleanType}
	return n, p.advance()
}

func (p *parser) in(x node) (node, error) {
	if err := p.advance(); err != nil {
		return x, err
	}
	if !p.next.is("(") {
		return x, p.wrong(p.next.at, "a list in parentheses is expected behind IN, and not %s", p.next)
	}
	set, err := p.list()
	if err == nil && len(set) == 0 {
		err = p.wrong(p.next.at, "the list behind IN is empty")
	}
	return node{Expression: expression.NewInExpression(x.Expression, set), kind: cesql.BooleanType}, err
}

// list reads (a, b, …), which may be empty.
func (p *parser) list() ([]cesql.Expression, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	if err := p.expect("("); err != nil {
		return nil, err
	}
	if end, err := p.accept(")"); end || err != nil {
		return nil, err
	}
	var all []cesql.Expression
	for {
		n, err := p.logic()
		if err != nil {
			return nil, err
		}
		all = append(all, n.Expression)
		if more, err := p.accept(","); err != nil {
			return nil, err
		} else if !more {
			return all, p.expect(")")
		}
	}
}

// unary reads NOT a, -a and what binds closer.
func (p *parser) unary() (node, error) {
	sign := p.next
	if !sign.is("NOT") && !sign.is("-") && !sign.is("+") {
		return p.primary()
	}
	if err := p.enter(); err != nil {
		return node{}, err
	}
	defer p.leave()
	if err := p.advance(); err != nil {
		return node{}, err
	}
	// A sign and the digits right behind it are one number: 2147483648 by itself would not fit.
	if sign.kind == tokenSign && p.next.kind == tokenInteger && p.next.at == sign.at+1 {
		return p.integer(sign.text, sign.at)
	}
	if sign.is("+") {
		return node{}, p.wrong(sign.at, "a + stands between two numbers, or right before one")
	}
	n, err := p.unary()
	if sign.is("-") {
		return node{Expression: expression.NewNegateExpression(n.Expression), kind: cesql.IntegerType}, err
	}
	return node{Expression: expression.NewNotExpression(n.Expression), kind: cesql.BooleanType, not: true}, err
}

// primary reads what stands by itself.
func (p *parser) primary() (node, error) {
	t := p.next
	switch {
	case t.kind == tokenString:
		return node{Expression: expression.NewLiteralExpression(t.text), kind: cesql.StringType}, p.advance()
	case t.kind == tokenInteger:
		return p.integer("", t.at)
	case t.is("TRUE"), t.is("FALSE"):
		return node{Expression: expression.NewLiteralExpression(t.text == "TRUE"), kind: cesql.BooleanType}, p.advance()
	case t.is("("):
		return p.parentheses()
	case t.is("EXISTS"):
		if err := p.advance(); err != nil {
			return node{}, err
		}
		name, err := p.name()
		return node{Expression: exists(name), kind: cesql.BooleanType}, err
	case t.kind == tokenWord && strings.HasPrefix(strings.TrimLeft(p.text[p.at:], " \t\r\n"), "("):
		if !keyword(t.text) {
			return p.call()
		}
	}
	name, err := p.name()
	return node{Expression: attribute(name), kind: cesql.AnyType}, err
}

func (p *parser) parentheses() (node, error) {
	if err := p.enter(); err != nil {
		return node{}, err
	}
	defer p.leave()
	if err := p.advance(); err != nil {
		return node{}, err
	}
	n, err := p.logic()
	if err != nil {
		return n, err
	}
	n.not = false
	return n, p.expect(")")
}

func (p *parser) integer(sign string, at int) (node, error) {
	value, err := strconv.ParseInt(sign+p.next.text, 10, 32)
	if err != nil {
		return node{}, p.wrong(at, "%.50s does not fit 32 bits, and CESQL has no longer integers", sign+p.next.text)
	}
	return node{Expression: expression.NewLiteralExpression(int32(value)), kind: cesql.IntegerType}, p.advance()
}

func keyword(word string) bool {
	switch word {
	case "AND", "OR", "XOR", "NOT", "LIKE", "EXISTS", "IN", "TRUE", "FALSE":
		return true
	default:
		return false
	}
}

// name reads the name of an attribute.
func (p *parser) name() (string, error) {
	t := p.next
	switch {
	case t.kind == tokenWord && strings.Contains(t.text, "_"):
		return "", p.wrong(t.at, "%s is no attribute's name: those are letters and digits", t)
	case t.kind == tokenInteger, t.kind == tokenWord && !keyword(t.text):
	default:
		return "", p.wrong(t.at, "an attribute, a number, a text or a parenthesis is expected, and not %s", t)
	}
	name := strings.ToLower(t.text)
	p.uses[name] = true
	return name, p.advance()
}

// call reads a function and its arguments.
func (p *parser) call() (node, error) {
	name := p.next
	if err := p.advance(); err != nil {
		return node{}, err
	}
	args, err := p.list()
	if err != nil {
		return node{}, err
	}
	fn := resolve(name.text, len(args))
	if fn == nil {
		return node{}, p.wrong(name.at, "there is no function %.50s of %d arguments", name.text, len(args))
	}
	return node{Expression: call{fn, args}, kind: fn.ReturnType()}, nil
}
