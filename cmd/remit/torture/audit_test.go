package torture

import (
	"errors"
	"testing"
)

// After a failed sync what is closed may never come back. Whoever inspects is told all the same.
func TestUnlessFatal(t *testing.T) {
	cause, ended := errors.New("disk"), errors.New("ended")
	stop := make(chan struct{})
	defer close(stop)
	err := unlessFatal(func(fatal func(error)) error {
		fatal(cause)
		fatal(ended)
		<-stop
		return nil
	})
	if f := (*fatalError)(nil); !errors.As(err, &f) || !errors.Is(err, cause) {
		t.Error(err)
	}
	for range 100 {
		err = unlessFatal(func(fatal func(error)) error {
			fatal(cause)
			return ended
		})
		if !errors.Is(err, cause) {
			t.Fatal(err)
		}
	}
	if err := unlessFatal(func(func(error)) error { return ended }); err != ended {
		t.Error(err)
	}
}
