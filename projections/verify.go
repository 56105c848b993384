package projections

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
)

// Digest is what the rows of one partition of a view come to.
type Digest struct {
	View      string
	Partition int32
	Offset    log.Offset // of the first event that is not in it
	Sum       [sha256.Size]byte
}

func (d Digest) String() string {
	return fmt.Sprintf("%s/%d@%d %s", d.View, d.Partition, d.Offset, hex.EncodeToString(d.Sum[:8]))
}

// Difference is a partition of a view whose rows are not what a replay makes of the log.
type Difference struct {
	Serving  Digest
	Replayed [sha256.Size]byte
}

func (d Difference) String() string {
	return fmt.Sprintf("%s, replayed %s", d.Serving, hex.EncodeToString(d.Replayed[:8]))
}

// Verified is what a verification found.
type Verified struct {
	// Digests are those of the serving views, by view and partition.
	Digests []Digest
	// Different lists the partitions that do not equal their replay (V1); empty is well.
	Different []Difference
}

// VerifyOptions say what is verified, and where the replay is kept meanwhile.
type VerifyOptions struct {
	// Views names the views to verify; none means all.
	Views []string
	// Dir is where a store is made for each view in turn, and deleted again. It must not be there.
	Dir string
	// FS is where Dir is; the views' own by default.
	FS vfs.FS
}

// Digests returns what the rows of the named views, or of all, come to now.
func (v *Views) Digests(names ...string) ([]Digest, error) {
	views, err := v.chosen(names)
	if err != nil {
		return nil, err
	}
	var all []Digest
	for _, f := range views {
		for p := range int32(v.opts.Partitions) {
			sum, at, err := f.Store.Digest(p)
			if err != nil {
				return nil, err
			}
			all = append(all, Digest{f.View.Name(), p, at, sum})
		}
	}
	return all, nil
}

func (v *Views) chosen(names []string) ([]fold.Followed, error) {
	if len(names) == 0 {
		return v.views, nil
	}
	chosen := make([]fold.Followed, len(names))
	for i, name := range names {
		f, ok := v.named(name)
		if !ok {
			return nil, fmt.Errorf("projections: no view is called %q", name)
		}
		chosen[i] = f
	}
	return chosen, nil
}

// Verify replays views beside those that serve, and compares them (V1). Of each partition a digest of the serving rows is taken in one
// snapshot, with the offset that it reflects; then the log is folded from its first record to that offset, into a store of its
// own. Serving goes on, and is not looked at again.
func (v *Views) Verify(ctx context.Context, o VerifyOptions) (found Verified, err error) {
	views, err := v.chosen(o.Views)
	if err != nil {
		return found, err
	}
	if o.FS == nil {
		o.FS = v.opts.FS
	}
	for _, f := range views {
		digests, err := v.Digests(f.View.Name())
		if err != nil {
			return found, err
		}
		different, err := v.verify(ctx, o, digests)
		if err != nil {
			return found, fmt.Errorf("projections: verify %s: %w", f.View.Name(), err)
		}
		found.Digests, found.Different = append(found.Digests, digests...), append(found.Different, different...)
	}
	return found, nil
}

// verify replays one view to where its digests were taken.
func (v *Views) verify(ctx context.Context, o VerifyOptions, digests []Digest) (different []Difference, err error) {
	opts := v.opts
	opts.FS, opts.Cache = o.FS, nil
	var k kind
	for _, k = range kinds {
		if k.name == digests[0].View {
			break
		}
	}
	dir := filepath.Join(o.Dir, k.name)
	if _, err := o.FS.Stat(dir); err == nil {
		return nil, fmt.Errorf("%s is there already", dir)
	}
	s, err := opts.open(k, dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		closed := s.Close()
		if removed := o.FS.RemoveAll(dir); err == nil {
			err = closed
			if err == nil {
				err = removed
			}
		}
	}()
	beside := fold.Followed{View: k.view(&opts, s), Store: s}
	for _, d := range digests {
		if err := fold.Replay(ctx, v.opts.Log, log.EventsTopic, Facts(), beside, d.Partition, d.Offset); err != nil {
			return nil, err
		}
		sum, at, err := s.Digest(d.Partition)
		switch {
		case err != nil:
			return nil, err
		case at != d.Offset:
			return nil, fmt.Errorf("partition %d was replayed to offset %d, not %d", d.Partition, at, d.Offset)
		case sum != d.Sum:
			different = append(different, Difference{d, sum})
		}
	}
	return different, nil
}
