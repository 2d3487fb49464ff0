package layers

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/internal/compress"
	"github.com/layerfs/layerfs/internal/deflate"
)

// regenerate opens a blob that is made while it is read, from its layer and the
// correction, which is closed with the blob and also on error. The work is done on a
// core of its own, a little ahead of who reads.
func (s *Store) regenerate(ctx context.Context, d digest.Digest, f index.Form, correction *os.File) (*LayerBlob, error) {
	l, err := s.OpenLayer(DiffID(digestOf(f.Layer)))
	if err != nil {
		return nil, errors.Join(err, correction.Close())
	}
	tar, err := l.Tar()
	if err != nil {
		return nil, errors.Join(err, l.Close(), correction.Close())
	}
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := bufio.NewWriterSize(w, regenerateAhead)
		plain := compress.Pipe(io.NopCloser(io.NewSectionReader(tar, 0, tar.Size())))
		err := deflate.Reconstruct(plain, correction, buf)
		if err == nil {
			err = buf.Flush()
		}
		_ = plain.Close() // it was only read
		if errors.Is(err, deflate.ErrCorrection) {
			err = fmt.Errorf("%w: %w; load its image again", ErrDamaged, err)
		}
		w.CloseWithError(err) // nil is io.EOF
	}()
	release := func() error {
		r.Close() // ends the goroutine at its next write
		<-done
		return errors.Join(correction.Close(), l.Close())
	}
	return &LayerBlob{ctx: ctx, digest: d, size: f.Size, r: r, hash: sha256.New(), close: release}, nil
}

// regenerateAhead is how much is made before the reader is woken.
const regenerateAhead = 256 << 10
