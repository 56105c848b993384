package saga

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/remitlog/remit/saga/accounts"
)

// machine drives an Activity as the commands do, without anything around it.
type machine struct {
	key  string
	now  int64
	a    Activity
	said Said
	log  []string // its facts
}

func (m *machine) begin(a Activity) {
	m.a, m.said, m.log = a, nil, []string{"begun"}
	m.a.Phase = PhaseTrying
	m.advance()
}

// advance decides if the verdict is in.
func (m *machine) advance() {
	if outcome, reason := m.a.Verdict(m.key, m.said, m.now); outcome != "" {
		m.decide(outcome, m.a.asked(), reason)
	}
}

func (m *machine) decide(o Outcome, amount int64, reason string) {
	m.log = append(m.log, strings.TrimSpace("decided "+string(o)+" "+reason))
	for _, p := range m.a.postings(m.key, o, amount) {
		m.log = append(m.log, fmt.Sprintf("  %s %+d", p.Account, p.Amount))
	}
	m.a, m.said = m.a.after(m.key, o, amount, m.now), nil
	if m.a.Phase.Final() {
		m.log = append(m.log, "  and ended")
	}
}

// hear takes an answer as the command answered does: what the phase does not expect is late, and changes nothing.
func (m *machine) hear(action string, verb accounts.Verb, answer accounts.Answer) {
	i := slices.IndexFunc(m.a.Owes(m.key, nil), func(o Owed) bool { return o.Action.Name == action && o.Verb == verb })
	if i < 0 || answer.Result == accounts.ResultConflict {
		return
	}
	if m.said == nil {
		m.said = Said{}
	}
	m.said[action] = answer
	m.proceed()
}

// proceed does what follows from what was said, and from the time.
func (m *machine) proceed() {
	switch {
	case m.a.Phase == PhaseTrying:
		m.advance()
	case !m.a.Phase.Final() && len(m.a.Owes(m.key, m.said)) == 0:
		m.a = m.a.ended(m.now)
		m.log = append(m.log, "ended")
	}
}

// finish is the capture, or the void.
func (m *machine) finish(o Outcome, amount int64) {
	tried := len(m.a.Owes(m.key, m.said)) == 0
	if m.a.Manual && m.a.Phase == PhaseTrying && (tried || o == Cancel) {
		m.decide(o, amount, "asked")
	}
}

func (m *machine) show(from int) string {
	var b strings.Builder
	for _, line := range m.log[from:] {
		fmt.Fprintf(&b, "append %s\n", line)
	}
	for _, o := range m.a.Owes(m.key, m.said) {
		fmt.Fprintf(&b, "owed   %s %s\n", o.Verb, o.Action.Name)
	}
	return fmt.Sprintf("%s=> %s\n", b.String(), m.a.Phase)
}

// TestScripts runs the scripts in testdata. A failure is a changed protocol: read the diff, and run with -rewrite only if you can
// say why it is right.
//
//	begin key=alice [manual] [refused=reason] [deadline=30s]     and a line for each action: name side account amount
//	answer ACTION VERB done|declined|conflict [reason]
//	finish confirm AMOUNT | finish cancel
//	tick 31s
//	forget                       the process dies: what was said and not written is gone
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		m := &machine{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			from := len(m.log)
			switch d.Cmd {
			case "begin":
				from = 0
				m.now = 0
				m.begin(begun(t, m, d))
			case "answer":
				a := accounts.Answer{Result: accounts.Result(d.CmdArgs[2].Key)}
				if len(d.CmdArgs) > 3 {
					a.Reason = accounts.Reason(d.CmdArgs[3].Key)
				}
				m.hear(d.CmdArgs[0].Key, accounts.Verb(d.CmdArgs[1].Key), a)
			case "finish":
				amount := int64(0)
				if len(d.CmdArgs) > 1 {
					_, _ = fmt.Sscan(d.CmdArgs[1].Key, &amount)
				}
				m.finish(Outcome(d.CmdArgs[0].Key), amount)
			case "tick":
				m.now += millis(t, d.CmdArgs[0].Key)
				m.proceed()
			case "forget":
				m.said = nil
			default:
				t.Fatalf("%s: unknown command %q", d.Pos, d.Cmd)
			}
			return m.show(from)
		})
	})
}

func begun(t *testing.T, m *machine, d *datadriven.TestData) Activity {
	d.ScanArgs(t, "key", &m.key)
	deadline, refused := "30s", ""
	d.MaybeScanArgs(t, "deadline", &deadline)
	d.MaybeScanArgs(t, "refused", &refused)
	a := Activity{Manual: d.HasArg("manual"), Refused: accounts.Reason(refused), DeadlineMs: millis(t, deadline)}
	for line := range strings.Lines(d.Input) {
		x := Action{Order: accounts.Order{Currency: "EUR"}}
		if _, err := fmt.Sscan(line, &x.Name, &x.Order.Side, &x.Order.Account, &x.Order.Amount); err != nil {
			t.Fatalf("%s: %v", d.Pos, err)
		}
		a.Actions = append(a.Actions, x)
	}
	return a
}

func millis(t *testing.T, s string) int64 {
	t.Helper()
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d.Milliseconds()
}

var (
	seed  = flag.Uint64("seed", 0, "seed of TestSim; 0 runs many")
	seeds = flag.Int("seeds", 5000, "how many seeds TestSim runs")
)

// TestSim lets activities meet participants over a network that loses, repeats, delays and reorders, with processes that
// forget, deadlines, captures and voids at any moment, and tries that are refused once and held the next time; an auditor that shares
// no code with the protocol looks at the participants' money after every step (A1, A2, A3). To repeat a failure:
//
//	go test ./saga -run TestSim -seed N
func TestSim(t *testing.T) {
	first, last := *seed, *seed
	if *seed == 0 {
		first, last = 1, uint64(*seeds)
	}
	for n := first; n <= last; n++ {
		s := newSim(rand.New(rand.NewPCG(n, 0)))
		if err := s.run(); err != nil {
			t.Fatalf("seed %d: %v\n%s", n, err, strings.Join(append(s.m.log, s.trace[:min(len(s.trace), 60)]...), "\n"))
		}
	}
}

type sim struct {
	rng   *rand.Rand
	m     *machine
	parts map[string]*part // the remote actions
	net   []packet
	trace []string
	asked map[string]map[accounts.Verb]bool // what each action was ever told
}

// part is a participant as the auditor knows it: what it did to its money.
type part struct {
	account           string
	amount            int64
	held, taken, shut bool
	given             int64 // what it took or was given
	moody             bool  // refuses its first try
}

type packet struct {
	action string
	verb   accounts.Verb
	amount int64
	answer *accounts.Answer // nil: a command on its way there
}

func newSim(rng *rand.Rand) *sim {
	s := &sim{rng: rng, m: &machine{key: "home"}, parts: map[string]*part{}, asked: map[string]map[accounts.Verb]bool{}}
	a := Activity{Manual: rng.IntN(3) == 0, DeadlineMs: int64(rng.IntN(60)), Actions: []Action{}}
	if rng.IntN(10) == 0 {
		a.Refused = "why"
	}
	amount := 1 + rng.Int64N(100)
	for i, side := range []accounts.Side{accounts.Debit, accounts.Credit, accounts.Debit, accounts.Credit}[:2+rng.IntN(3)] {
		x := Action{Name: fmt.Sprint(side, i), Order: accounts.Order{Side: side, Account: fmt.Sprint("far-", i), Currency: "EUR", Amount: amount}}
		if rng.IntN(3) == 0 {
			x.Order.Account = "home"
		} else {
			s.parts[x.Name] = &part{account: x.Order.Account, amount: amount, moody: rng.IntN(4) == 0}
		}
		a.Actions = append(a.Actions, x)
	}
	s.m.begin(a)
	return s
}

func (s *sim) run() error {
	for range 300 {
		if err := s.step(); err != nil {
			return err
		}
		if err := s.audit(); err != nil {
			return err
		}
	}
	return s.settle()
}

func (s *sim) step() error {
	before := len(s.m.log)
	was := s.m.a.Phase
	switch n := s.rng.IntN(20); {
	case n < 6:
		s.tell()
	case n < 15 && len(s.net) > 0:
		i := s.rng.IntN(len(s.net))
		p := s.net[i]
		if s.rng.IntN(4) > 0 { // else it comes again
			s.net = slices.Delete(s.net, i, i+1)
		}
		s.arrive(p)
	case n == 15 && len(s.net) > 0:
		s.net = slices.Delete(s.net, 0, 1)
	case n == 16:
		s.m.now += int64(s.rng.IntN(10))
		s.m.proceed()
	case n == 17:
		s.m.said = nil // the process dies
	case n == 18 && s.rng.IntN(3) == 0:
		s.m.finish([]Outcome{Confirm, Cancel}[s.rng.IntN(2)], 1+s.rng.Int64N(s.m.a.asked()+1)%max(s.m.a.asked(), 1))
	}
	if was.Final() && len(s.m.log) > before {
		return fmt.Errorf("%s moved on", was)
	}
	return nil
}

// tell sends what is owed, as the runtime does after every append and every restart.
func (s *sim) tell() {
	for _, o := range s.m.a.Owes(s.m.key, s.m.said) {
		if s.asked[o.Action.Name] == nil {
			s.asked[o.Action.Name] = map[accounts.Verb]bool{}
		}
		s.asked[o.Action.Name][o.Verb] = true
		amount := o.Action.Order.Amount
		if s.m.a.Phase == PhaseConfirming {
			amount = s.m.a.Amount
		}
		s.net = append(s.net, packet{action: o.Action.Name, verb: o.Verb, amount: amount})
	}
}

func (s *sim) arrive(p packet) {
	if p.answer != nil {
		s.trace = append(s.trace, fmt.Sprintf("    %s says %v to %s", p.action, *p.answer, p.verb))
		s.m.hear(p.action, p.verb, *p.answer)
		return
	}
	x := s.parts[p.action]
	answer := x.do(p.verb, p.amount, s.rng.IntN(6) == 0)
	s.net = append(s.net, packet{action: p.action, verb: p.verb, answer: &answer})
}

// do is what a participant that keeps A3 does. A hold that is refused may be tried again and then hold.
func (x *part) do(verb accounts.Verb, amount int64, poor bool) accounts.Answer {
	done := accounts.Answer{Result: accounts.ResultDone}
	switch verb {
	case accounts.VerbHold:
		switch {
		case x.shut:
			return accounts.Answer{Result: accounts.ResultDeclined, Reason: accounts.Cancelled}
		case !x.held && !x.taken && (poor || x.moody):
			x.moody = false
			return accounts.Answer{Result: accounts.ResultDeclined, Reason: accounts.InsufficientFunds}
		case !x.taken:
			x.held = true
		}
	case accounts.VerbPost:
		if x.shut || !x.held && !x.taken {
			return accounts.Answer{Result: accounts.ResultConflict}
		}
		if !x.taken {
			x.held, x.taken, x.given = false, true, amount
		}
	case accounts.VerbVoid:
		if x.taken {
			return accounts.Answer{Result: accounts.ResultConflict}
		}
		x.held, x.shut = false, true
	case accounts.VerbCredit:
		if !x.taken {
			x.taken, x.given = true, amount
		}
	}
	return done
}

// audit looks at what was told and done so far.
func (s *sim) audit() error {
	for action, verbs := range s.asked {
		if (verbs[accounts.VerbPost] || verbs[accounts.VerbCredit]) && verbs[accounts.VerbVoid] {
			return fmt.Errorf("%s was told both (A2)", action)
		}
	}
	taken, shut := 0, 0
	for name, x := range s.parts {
		if x.taken {
			taken++
		}
		if x.shut {
			shut++
		}
		if x.taken && x.given > x.amount {
			return fmt.Errorf("%s took %d of %d", name, x.given, x.amount)
		}
	}
	if taken > 0 && shut > 0 {
		return fmt.Errorf("%d took and %d gave back (A1)", taken, shut)
	}
	return nil
}

// settle lets everything through, and looks at the end.
func (s *sim) settle() error {
	for range 100 {
		s.m.now += 1000
		s.m.proceed()
		if s.m.a.Phase == PhaseTrying && s.m.a.Manual {
			s.m.finish(Cancel, 0)
		}
		s.tell()
		for len(s.net) > 0 {
			p := s.net[0]
			s.net = s.net[1:]
			s.arrive(p)
		}
		if err := s.audit(); err != nil {
			return err
		}
	}
	if !s.m.a.Phase.Final() {
		return fmt.Errorf("it is %s for ever", s.m.a.Phase)
	}
	if n := len(s.m.a.Owes(s.m.key, nil)); n > 0 {
		return fmt.Errorf("%s owes %d", s.m.a.Phase, n)
	}
	for name, x := range s.parts {
		switch {
		case x.held:
			return fmt.Errorf("%s: %s still holds (A1)", s.m.a.Phase, name)
		case s.m.a.Phase == PhaseConfirmed && (!x.taken || x.given != s.m.a.Amount):
			return fmt.Errorf("confirmed with %d, and %s has %d (A1)", s.m.a.Amount, name, x.given)
		case s.m.a.Phase == PhaseCancelled && x.taken:
			return fmt.Errorf("cancelled, and %s took (A1)", name)
		}
	}
	return nil
}
