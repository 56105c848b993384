package producer

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/remitlog/remit/log"
)

// Options say who sends, where remit is, and within which limits. Zero limits are the defaults.
type Options struct {
	// Server is where remit listens: http://127.0.0.1:8080.
	Server string
	// Producer is the name under which the service is registered. Its messages are decided by one database: two services with databases of their own
	// have two names.
	Producer string
	// Token is sent as Authorization: Bearer; empty for none.
	Token string
	// Secrets are what remit's questions are signed with, as Standard Webhooks: several while rotating, one of them must fit. A
	// secret that begins with whsec_ is base64 behind it; any other is the key itself. Without one everybody who reaches the handler is
	// answered.
	Secrets []string
	// Client calls remit. By default one of its own, which keeps connections open.
	Client   *http.Client
	Listener Listener

	// CallMax is how long one call of remit may take. 5 s.
	CallMax time.Duration
	// AttemptsMax is how often a call is made until its error is the caller's: to store a half message, to register. 4.
	AttemptsMax int
	// BackoffMin is the time until the second attempt; it doubles up to BackoffMax, and a part of it is jitter. 50 ms, 5 s.
	BackoffMin, BackoffMax time.Duration
	// ConfirmsMax is how many decisions that remit could not be told are told again in the background. What is beyond is left to the
	// back-check. 1024.
	ConfirmsMax int
	// ConfirmAttemptsMax is how often one is told, the first time included; then it is left to the back-check. 10.
	ConfirmAttemptsMax int
	// SettleMax is how long it may take to find out what became of a local transaction whose COMMIT, or ROLLBACK, has failed. Then it is
	// ErrOutcomeUnknown. 10 s.
	SettleMax time.Duration
	// CheckMax is how long the answer to a question of remit's may take. remit waits for 10 s. 5 s.
	CheckMax time.Duration
}

// EnsureDefaults fills in what is zero.
func (o *Options) EnsureDefaults() {
	o.CallMax = cmp.Or(o.CallMax, 5*time.Second)
	o.AttemptsMax = cmp.Or(o.AttemptsMax, 4)
	o.BackoffMin = cmp.Or(o.BackoffMin, 50*time.Millisecond)
	o.BackoffMax = cmp.Or(o.BackoffMax, max(5*time.Second, o.BackoffMin))
	o.ConfirmsMax = cmp.Or(o.ConfirmsMax, 1024)
	o.ConfirmAttemptsMax = cmp.Or(o.ConfirmAttemptsMax, 10)
	o.SettleMax = cmp.Or(o.SettleMax, 10*time.Second)
	o.CheckMax = cmp.Or(o.CheckMax, 5*time.Second)
	o.Server = strings.TrimSuffix(o.Server, "/")
	if o.Client == nil {
		t := http.DefaultTransport.(*http.Transport).Clone() // net/http says that it is one
		t.MaxIdleConnsPerHost = idleMax
		o.Client = &http.Client{Transport: t}
	}
	o.Listener.ensureDefaults()
}

// idleMax is how many connections to remit are kept open: net/http's own 2 would be made anew all the time.
const idleMax = 64

// Validate reports the first thing that is wrong.
func (o *Options) Validate() error {
	u, err := url.Parse(o.Server)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.User != nil:
		return fmt.Errorf("producer: Options.Server %q is not where remit listens, as in http://127.0.0.1:8080", o.Server)
	case o.Producer == "":
		return errors.New("producer: Options.Producer is missing; it is the name under which the service is registered")
	case min(o.AttemptsMax, o.ConfirmsMax, o.ConfirmAttemptsMax) < 1:
		return fmt.Errorf("producer: each limit is at least 1: %s", o)
	case min(o.CallMax, o.SettleMax, o.CheckMax, o.BackoffMin) <= 0 || o.BackoffMax < o.BackoffMin:
		return fmt.Errorf("producer: each time is above 0, and BackoffMax is not below BackoffMin: %s", o)
	}
	_, err = verifiers(o.Secrets)
	return err
}

// String says all of it but the token and the secrets.
func (o *Options) String() string {
	return fmt.Sprintf("server=%s producer=%s token=%t secrets=%d call=%s attempts=%d backoff=%s..%s confirms=%d confirmAttempts=%d settle=%s check=%s",
		o.Server, o.Producer, o.Token != "", len(o.Secrets), o.CallMax, o.AttemptsMax, o.BackoffMin, o.BackoffMax, o.ConfirmsMax, o.ConfirmAttemptsMax,
		o.SettleMax, o.CheckMax)
}

// backoff is how long to wait after the nth attempt, which failed: at least what remit asks for, up to BackoffMax.
func (o *Options) backoff(n int, err error) time.Duration {
	d := o.BackoffMin
	for ; n > 1 && d < o.BackoffMax; n-- {
		d *= 2
	}
	d = min(d, o.BackoffMax)
	d -= rand.N(d/2 + 1)
	if answer, ok := errors.AsType[*AnswerError](err); ok {
		d = max(d, min(answer.RetryAfter, o.BackoffMax))
	}
	return d
}

// Listener is told what happens. Any function may be nil. They are called without locks, by many goroutines at once, and hold the work up until
// they return.
type Listener struct {
	// Prepared: remit has a half message.
	Prepared func(id log.ID, topic string, took time.Duration)
	// Ended: the local transaction has ended so. Unknown: nobody could say how; the back-check settles it.
	Ended func(id log.ID, v Verdict, took time.Duration)
	// Confirmed: remit has taken the decision, at this attempt.
	Confirmed func(id log.ID, v Verdict, attempt int)
	// Retried: a call of remit failed, and is made again after a while.
	Retried func(call string, err error, after time.Duration)
	// Unconfirmed: remit could not be told, and is not told again; the back-check settles it.
	Unconfirmed func(id log.ID, v Verdict, err error)
	// Contradicted: remit has recorded otherwise than the local transaction has ended. A person must look.
	Contradicted func(id log.ID, v Verdict, err error)
	// Checked: a question of remit's was answered with v; or, if err is not nil, was not answered with a verdict.
	Checked func(q Question, v Verdict, err error)
	// Leased: an instance's lease was renewed, or, if err is not nil, could not be. It is tried again.
	Leased func(instance string, err error)
}

func (l *Listener) ensureDefaults() {
	if l.Prepared == nil {
		l.Prepared = func(log.ID, string, time.Duration) {}
	}
	if l.Ended == nil {
		l.Ended = func(log.ID, Verdict, time.Duration) {}
	}
	if l.Confirmed == nil {
		l.Confirmed = func(log.ID, Verdict, int) {}
	}
	if l.Retried == nil {
		l.Retried = func(string, error, time.Duration) {}
	}
	if l.Unconfirmed == nil {
		l.Unconfirmed = func(log.ID, Verdict, error) {}
	}
	if l.Contradicted == nil {
		l.Contradicted = func(log.ID, Verdict, error) {}
	}
	if l.Checked == nil {
		l.Checked = func(Question, Verdict, error) {}
	}
	if l.Leased == nil {
		l.Leased = func(string, error) {}
	}
}
