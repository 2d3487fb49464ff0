package layers

import (
	"context"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/layerfs/layerfs/index"
)

// forms checks that every compressed form that is not gone can be had, and unless
// Fast that its bytes are right.
func (c *checker) forms(ctx context.Context) error {
	type form struct {
		digest digest.Digest
		index.Form
	}
	var all []form
	err := c.s.index.View(ctx, func(tx *index.Tx) error {
		all = all[:0]
		return tx.EachForm(func(sum index.Sum, f index.Form) error {
			if f.How != index.FormGone {
				all = append(all, form{digestOf(sum), f})
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	for _, f := range all {
		layer := digestOf(f.Layer)
		if _, known := c.users[layer]; !known {
			continue // left by a layer that was removed; the collector's
		}
		if err := c.s.checkForm(ctx, f.digest, f.Form, c.o.Fast); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if !c.s.hasForm(ctx, f.digest, f.Form) {
				continue // removed or replaced since
			}
			p := c.problem("layer "+string(layer), "", err.Error(), c.users[layer])
			p.part, p.layer, p.blob = partForm, DiffID(layer), f.digest
		}
	}
	return nil
}

// hasForm reports whether the form is still recorded as it was.
func (s *Store) hasForm(ctx context.Context, d digest.Digest, was index.Form) bool {
	err := s.view(ctx, func(tx *index.Tx) error {
		f, err := tx.Form(sumOf(d))
		if err == nil && f != was {
			err = index.ErrNotFound
		}
		return err
	})
	return err == nil
}

// checkForm verifies one compressed form: its presence and size, unless fast all of
// its bytes.
func (s *Store) checkForm(ctx context.Context, d digest.Digest, f index.Form, fast bool) error {
	b, err := s.openForm(ctx, d, f)
	if err != nil {
		return missingBlob(err)
	}
	defer b.Close()
	if !fast {
		_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{b}, make([]byte, copyPiece))
		return err
	}
	if b.file == nil {
		return nil
	}
	st, err := b.file.Stat()
	if err == nil && st.Size() != f.Size {
		err = fmt.Errorf("%w: blob %s has %d bytes instead of %d; load its image again", ErrDamaged, d, st.Size(), f.Size)
	}
	return err
}
