package api

import (
	"errors"
	"net/http"
	"time"

	"github.com/remitlog/remit/log/registry"
)

// How long an instance is asked after it was last heard of.
const (
	LeaseDefault = 30 * time.Second
	LeaseMin     = time.Second
	LeaseMax     = 24 * time.Hour
)

// Instance is an instance of a producer as it is answered. How long its lease still lasts is not written, and not answered.
type Instance struct {
	Producer string   `json:"producer"`
	Instance string   `json:"instance"`
	URL      string   `json:"url"`
	Lease    Duration `json:"lease"`
}

// InstanceRequest registers an instance, or renews its lease.
type InstanceRequest struct {
	URL   string    `json:"url"`
	Lease *Duration `json:"lease,omitzero"`
}

func (b *InstanceRequest) onto(i *registry.Instance) error {
	if err := checkAddress("url", b.URL); err != nil {
		return err
	}
	lease := given(b.Lease, LeaseDefault)
	if lease < LeaseMin || lease > LeaseMax {
		return invalidField("lease", "%s cannot be; give %s to %s", Duration(lease), Duration(LeaseMin), Duration(LeaseMax))
	}
	i.URL, i.Lease = b.URL, lease.Milliseconds()
	return nil
}

func instanceAnswer(i registry.Instance) Instance {
	return Instance{Producer: i.Producer, Instance: i.Name, URL: i.URL, Lease: spanOf(i.Lease)}
}

// instanceOf reads the two names of an instance from the path.
func instanceOf(r *http.Request) (i registry.Instance, err error) {
	if i.Producer, err = producerOf(r); err != nil {
		return i, err
	}
	i.Name = r.PathValue("instance")
	return i, checkProducer("instance", i.Name)
}

// unknownInstance says which of the two is not there.
func (p *Producers) unknownInstance(i registry.Instance) error {
	if _, ok := p.Registry.Producer(i.Producer); !ok {
		return unknownProducer(i.Producer)
	}
	return NewProblem(CodeUnknownInstance, "producer %q has no instance %q; searched those whose lease has not ended; register it with PUT /v1/producers/%s/instances/%s",
		i.Producer, i.Name, i.Producer, i.Name).With("instance", i.Name)
}

func (p *Producers) putInstance(w http.ResponseWriter, r *http.Request) error {
	i, err := instanceOf(r)
	if err != nil {
		return err
	}
	if err := ParseQuery(r).Done(); err != nil {
		return err
	}
	var body InstanceRequest
	if err := Decode(w, r, &body); err != nil {
		return err
	}
	if err := body.onto(&i); err != nil {
		return err
	}
	added, err := p.Registry.Enlist(r.Context(), i)
	switch {
	case errors.Is(err, registry.ErrUnknownProducer):
		return unknownProducer(i.Producer)
	case err != nil:
		return err
	}
	SetPosition(w, p.Node.Position())
	return WriteJSON(w, putStatus(added), instanceAnswer(i))
}

func (p *Producers) getInstance(w http.ResponseWriter, r *http.Request) error {
	i, err := instanceOf(r)
	if err != nil {
		return err
	}
	if err := ParseQuery(r).Done(); err != nil {
		return err
	}
	found, ok := p.Registry.Instance(i.Producer, i.Name)
	if !ok {
		return p.unknownInstance(i)
	}
	SetPosition(w, p.Node.Position())
	return WriteJSON(w, http.StatusOK, instanceAnswer(found))
}

func (p *Producers) listInstances(w http.ResponseWriter, r *http.Request) error {
	name, err := producerOf(r)
	if err != nil {
		return err
	}
	q := ParseQuery(r)
	page := q.Page()
	if err := q.Done(); err != nil {
		return err
	}
	if _, ok := p.Registry.Producer(name); !ok {
		return unknownProducer(name)
	}
	list := pageByName(q, page, p.Registry.Instances(name), func(i registry.Instance) string { return i.Name }, instanceAnswer)
	SetPosition(w, p.Node.Position())
	return WriteJSON(w, http.StatusOK, list)
}

func (p *Producers) deleteInstance(w http.ResponseWriter, r *http.Request) error {
	i, err := instanceOf(r)
	if err != nil {
		return err
	}
	if err := ParseQuery(r).Done(); err != nil {
		return err
	}
	switch err := p.Registry.Leave(r.Context(), i.Producer, i.Name); {
	case errors.Is(err, registry.ErrUnknownInstance):
		return p.unknownInstance(i)
	case err != nil:
		return err
	}
	SetPosition(w, p.Node.Position())
	w.WriteHeader(http.StatusNoContent)
	return nil
}
