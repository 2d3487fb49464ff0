package layers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/internal/blob"
	"github.com/layerfs/layerfs/internal/deflate"
	"github.com/layerfs/layerfs/internal/flock"
)

// Squeezing replaces a kept blob by a correction: a small file from which, together
// with the layer, the blob can be made again bit for bit (package deflate). The order
// of it is fixed here, so that at every moment the blob or a proven way to it is on
// the disk:
//
//	analyze  the blob, into a staged correction
//	prove    the layer and the correction give the blob: size and digest
//	publish  the correction, synced
//	record   that the form is corrected; from here on the blob is garbage
//	remove   the blob
//
// One squeeze works on a store at a time (squeeze.lock). What a killed one leaves is
// the collector's, and the next goes on with what is left to do.

// SqueezeOptions change what Squeeze does; nil means the defaults.
type SqueezeOptions struct {
	// Again also tries blobs for which an earlier squeeze found no correction.
	Again bool
	// Parallel is how many blobs are worked on at once, each on one core; 0 means 2.
	Parallel int
	// Progress is called, from several goroutines, after each blob.
	Progress func(Squeezed)
}

// Squeezed is what became of one kept blob.
type Squeezed struct {
	Digest digest.Digest `json:"digest"`
	Layer  DiffID        `json:"layer"`
	Size   int64         `json:"size"`
	// Stored is what the form takes now: the size of the correction, or Size when the
	// blob stays.
	Stored int64 `json:"stored"`
	// Kept says why the blob stays.
	Kept string `json:"kept,omitempty"`
	// Predictor is the encoder that the blob looks like it came from.
	Predictor string `json:"predictor,omitempty"`
}

// squeezeVersion grows when a blob may be tried again for which there was no
// correction before.
const squeezeVersion = 1

// squeezeGain is the part of a blob that a correction must save to be worth the time
// that making the blob again takes.
const squeezeGain = 3 // a third

// Squeeze finds corrections for the kept blobs and drops those blobs for which it has
// proven one. It returns what it did, also with an error; ErrBusy when another squeeze
// is at work. It may be interrupted at any time, and the next one goes on.
func (s *Store) Squeeze(ctx context.Context, o *SqueezeOptions) ([]Squeezed, error) {
	if o == nil {
		o = &SqueezeOptions{}
	}
	if err := s.writable(); err != nil {
		return nil, err
	}
	lock, err := s.lockSqueeze()
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	temp, err := s.newTemp("squeeze")
	if err != nil {
		return nil, err
	}
	out, err := s.squeezeAll(ctx, temp.path, o)
	return out, errors.Join(err, temp.remove())
}

func (s *Store) lockSqueeze() (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(s.root, "squeeze.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("store %s: %w", s.root, err)
	}
	ok, err := flock.Try(f)
	if err == nil && !ok {
		err = fmt.Errorf("%w: another squeeze is at work; what it does need not be done twice", ErrBusy)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// A namedForm is a form with its digest.
type namedForm struct {
	sum index.Sum
	index.Form
}

// squeezable returns the forms that are kept and, unless again, were not tried, the
// largest first.
func (s *Store) squeezable(ctx context.Context, again bool) ([]namedForm, error) {
	var all []namedForm
	err := s.index.View(ctx, func(tx *index.Tx) error {
		all = all[:0]
		return tx.EachForm(func(sum index.Sum, f index.Form) error {
			if f.How == index.FormKept && (again || f.Tried < squeezeVersion) {
				all = append(all, namedForm{sum, f})
			}
			return nil
		})
	})
	slices.SortFunc(all, func(a, b namedForm) int { return cmp.Compare(b.Size, a.Size) })
	return all, err
}

func (s *Store) squeezeAll(ctx context.Context, temp string, o *SqueezeOptions) ([]Squeezed, error) {
	todo, err := s.squeezable(ctx, o.Again)
	if err != nil {
		return nil, err
	}
	out := make([]Squeezed, len(todo))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(cmp.Or(max(o.Parallel, 0), parallelLayers))
	for i, f := range todo {
		g.Go(func() error {
			if gctx.Err() != nil {
				return gctx.Err()
			}
			q, err := s.squeezeForm(gctx, filepath.Join(temp, fmt.Sprint(i)), f)
			if errors.Is(err, ErrLayerUnknown) {
				return nil // removed meanwhile
			}
			if err != nil {
				return fmt.Errorf("blob %s: %w", digestOf(f.sum), err)
			}
			out[i] = *q
			if o.Progress != nil {
				o.Progress(*q)
			}
			return nil
		})
	}
	err = g.Wait()
	return slices.DeleteFunc(out, func(q Squeezed) bool { return q.Digest == "" }), err
}

// squeezeForm does the steps for one form. An error means that squeezing cannot go on;
// a blob that stays is none.
func (s *Store) squeezeForm(ctx context.Context, path string, f namedForm) (*Squeezed, error) {
	q := &Squeezed{Digest: digestOf(f.sum), Layer: DiffID(digestOf(f.Layer)), Size: f.Size, Stored: f.Size}
	staged, err := s.blobs.StageCorrection(path)
	if err != nil {
		return nil, err
	}
	err = s.prove(ctx, q, staged, f)
	var no *noCorrection
	if errors.As(err, &no) {
		q.Kept = no.why
		return q, errors.Join(s.blobs.Discard(staged), s.tried(ctx, f))
	}
	if err != nil {
		return nil, errors.Join(err, s.blobs.Discard(staged))
	}
	return q, s.replaceBlob(ctx, q, staged, f)
}

// noCorrection is the reason why a blob stays.
type noCorrection struct{ why string }

func (e *noCorrection) Error() string { return e.why }

// prove makes the correction and proves that it gives the blob.
func (s *Store) prove(ctx context.Context, q *Squeezed, staged *blob.Staged, f namedForm) error {
	b, err := s.openForm(ctx, q.Digest, f.Form)
	if errors.Is(err, blob.ErrNotFound) {
		return &noCorrection{"it is missing; `layerfs check` says more"}
	}
	if err != nil {
		return err
	}
	defer b.Close()
	out := &gainWriter{w: staged, left: f.Size - f.Size/squeezeGain}
	stats, err := deflate.Analyze(b, out)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case out.left < 0:
		return &noCorrection{"what would have to be stored is hardly smaller than the blob"}
	case errors.Is(err, deflate.ErrNotGzip):
		return &noCorrection{"it is not gzip"}
	case errors.Is(err, ErrDamaged):
		return &noCorrection{"it is damaged; `layerfs check` says more"}
	case err != nil:
		return err
	}
	q.Predictor = stats.Predictor
	if err := staged.Finish(f.sum); err != nil {
		return err
	}
	q.Stored = staged.Size()
	file, err := os.Open(staged.Name())
	if err != nil {
		return err
	}
	again, err := s.regenerate(ctx, q.Digest, f.Form, file)
	if err != nil {
		return err
	}
	_, err = again.WriteTo(io.Discard)
	err = errors.Join(err, again.Close())
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		q.Stored = f.Size
		return &noCorrection{"it did not come out the same: " + err.Error()}
	}
	return nil
}

// A gainWriter stops when more is written than would be worth it.
type gainWriter struct {
	w    io.Writer
	left int64
}

func (w *gainWriter) Write(p []byte) (int, error) {
	if w.left -= int64(len(p)); w.left < 0 {
		return 0, io.ErrShortWrite
	}
	return w.w.Write(p)
}

// tried notes that a search found no correction for a form.
func (s *Store) tried(ctx context.Context, f namedForm) error {
	return s.index.Update(ctx, "squeeze", func(tx *index.Tx) error {
		now, err := tx.Form(f.sum)
		if errors.Is(err, index.ErrNotFound) {
			return nil
		}
		if err != nil || now != f.Form {
			return err
		}
		now.Tried = squeezeVersion
		return tx.PutForm(f.sum, now)
	})
}

// replaceBlob publishes the correction, records it and drops the blob.
func (s *Store) replaceBlob(ctx context.Context, q *Squeezed, staged *blob.Staged, f namedForm) error {
	lease, err := s.NewLease(ctx, "squeeze")
	if err != nil {
		return errors.Join(err, s.blobs.Discard(staged))
	}
	defer lease.Close() // again, when something goes wrong
	// Until the correction is recorded a collection would take it for garbage.
	err = errors.Join(lease.holdBlobs(q.Digest), s.index.Settle(ctx))
	if err == nil {
		err = s.blobs.PublishBlobs([]*blob.Staged{staged})
	}
	if err != nil {
		return errors.Join(err, s.blobs.Discard(staged))
	}
	err = s.index.Update(ctx, "squeeze", func(tx *index.Tx) error {
		now, err := tx.Form(f.sum)
		if errors.Is(err, index.ErrNotFound) || err == nil && now != f.Form {
			return fmt.Errorf("%w: %s", ErrLayerUnknown, q.Layer) // changed meanwhile
		}
		if err != nil {
			return err
		}
		now.How, now.Stored = index.FormCorrected, q.Stored
		return tx.PutForm(f.sum, now)
	})
	if err = errors.Join(err, lease.Close()); err != nil {
		return err
	}
	return s.dropBlob(ctx, f.sum)
}

// dropBlob removes the blob of a corrected form, unless somebody is about to record
// that it is kept again; then it is the collector's.
func (s *Store) dropBlob(ctx context.Context, sum index.Sum) error {
	h := newHolds(s)
	return s.index.Exclude(ctx, "squeeze", func(tx *index.Tx) error {
		f, err := tx.Form(sum)
		if err != nil || f.How != index.FormCorrected {
			return nil
		}
		if err := h.refresh(); err != nil || h.blobs[sum] {
			return err
		}
		return s.blobs.RemoveBlob(sum)
	})
}
