package producer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
)

// Registration says how remit is to ask the service.
type Registration struct {
	Check    Check
	Precheck Precheck
}

// Check says where, when and how the service is back-checked. What is zero is remit's default. A Secret alone stays as it is, as long as anything else
// of the Check is given; the zero Check takes it away.
type Check struct {
	// URL is where the CheckHandler is. Without one the instances alone are asked, see [Producer.Lease].
	URL string
	// Secret is what back-checks are signed with from now on; for a day the one before signs too.
	Secret string
	// FirstAfter is the time from storing a half message to the first back-check. The pauses after it double from Interval to MaxInterval. A message
	// whose answer is still unknown after Deadline is parked.
	FirstAfter, Interval, MaxInterval, Deadline time.Duration
	// When is a condition, in CloudEvents SQL: a check waits until it holds.
	When string
	// Concurrency is how many back-checks are under way at once, Rate how many begin in a second.
	Concurrency, Rate int
}

// Precheck says where the service is asked before a committed message that matches When is delivered: where its PrecheckHandler is.
type Precheck struct{ URL, Secret, When string }

// Register says how the service is to be asked. It may be called at each start, by every process of the service.
func (p *Producer[T]) Register(ctx context.Context, r Registration) error {
	type check struct {
		URL         string `json:"url,omitzero"`
		Secret      string `json:"secret,omitzero"`
		FirstAfter  string `json:"firstAfter,omitzero"`
		Interval    string `json:"interval,omitzero"`
		MaxInterval string `json:"maxInterval,omitzero"`
		Deadline    string `json:"deadline,omitzero"`
		When        string `json:"when,omitzero"`
		Concurrency int    `json:"concurrency,omitzero"`
		Rate        int    `json:"rate,omitzero"`
	}
	type precheck struct {
		URL    string `json:"url"`
		Secret string `json:"secret,omitzero"`
		When   string `json:"when,omitzero"`
	}
	var body struct {
		Check    *check    `json:"check,omitzero"`
		Precheck *precheck `json:"precheck,omitzero"`
	}
	if c := r.Check; c != (Check{}) {
		body.Check = &check{
			c.URL, c.Secret, duration(c.FirstAfter), duration(c.Interval), duration(c.MaxInterval), duration(c.Deadline), c.When, c.Concurrency, c.Rate,
		}
	}
	if c := r.Precheck; c != (Precheck{}) {
		body.Precheck = &precheck{c.URL, c.Secret, c.When}
	}
	if err := p.put(ctx, p.path(""), body); err != nil {
		return fmt.Errorf("producer: registering %q: %w", p.opts.Producer, err)
	}
	return nil
}

// duration is how remit reads one; empty for zero.
func duration(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return strconv.FormatInt(d.Milliseconds(), 10) + "ms"
}

func (p *Producer[T]) path(below string) string {
	return "/v1/producers/" + url.PathEscape(p.opts.Producer) + below
}

func (p *Producer[T]) put(ctx context.Context, path string, body any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	_, err = p.remit.again(ctx, request{
		method: http.MethodPut, path: path, contentType: "application/json", body: b, want: []int{http.StatusOK, http.StatusCreated},
	})
	return err
}

// Instance is one process of a service that has several.
type Instance struct {
	// Name is its own among the service's instances: that of its host, for instance.
	Name string
	// URL is where its CheckHandler is.
	URL string
	// Lease is for how long remit asks it without hearing of it. 30 s; a second at least.
	Lease time.Duration
}

// LeaseMin is the shortest lease.
const LeaseMin = time.Second

// Lease registers an instance, and renews its lease, three times while it lasts, until Close, which gives it back. Back-checks go to
// instances that are registered so, and to the next if one does not answer.
func (p *Producer[T]) Lease(ctx context.Context, i Instance) error {
	if i.Lease == 0 {
		i.Lease = 30 * time.Second
	}
	if i.Name == "" || i.URL == "" || i.Lease < LeaseMin {
		return fmt.Errorf("producer: an instance has a name, a URL, and a lease of at least %s: %q, %q, %s", LeaseMin, i.Name, i.URL, i.Lease)
	}
	if err := p.enter(); err != nil {
		return err
	}
	path := p.path("/instances/" + url.PathEscape(i.Name))
	renew := func(ctx context.Context) error {
		return p.put(ctx, path, struct {
			URL   string `json:"url"`
			Lease string `json:"lease"`
		}{i.URL, duration(i.Lease)})
	}
	if err := renew(ctx); err != nil {
		p.work.Done()
		return fmt.Errorf("producer: registering instance %q of %q: %w", i.Name, p.opts.Producer, err)
	}
	go func() {
		defer p.work.Done()
		p.keep(i, path, renew)
	}()
	return nil
}

// keep renews a lease until Close.
func (p *Producer[T]) keep(i Instance, path string, renew func(context.Context) error) {
	tick := time.NewTicker(i.Lease / 3)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			renewing, cancel := context.WithTimeout(p.stop, i.Lease/3) // the next one is due then
			p.opts.Listener.Leased(i.Name, renew(renewing))
			cancel()
		case <-p.closing:
			_, err := p.remit.do(p.stop, request{method: http.MethodDelete, path: path, want: []int{http.StatusNoContent, http.StatusOK, http.StatusNotFound}})
			if err != nil { // it ends by itself
				p.opts.Listener.Leased(i.Name, errors.Join(ErrClosed, err))
			}
			return
		}
	}
}
