package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// A watch ends a request when nothing moves for too long, in either direction.
type watch struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	limit  time.Duration
}

func newWatch(ctx context.Context, limit time.Duration) *watch {
	w := &watch{limit: limit}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	w.timer = time.AfterFunc(limit, func() {
		w.cancel(fmt.Errorf("%w: nothing came for %v", ErrStalled, limit))
	})
	return w
}

func (w *watch) stop() {
	w.timer.Stop()
	w.cancel(context.Canceled)
}

// cause prefers the reason why the request was ended over what it led to.
func (w *watch) cause(err error) error {
	if cause := context.Cause(w.ctx); err != nil && errors.Is(cause, ErrStalled) {
		return cause
	}
	return err
}

// body tells the watch of every byte that is read.
func (w *watch) body(rc io.ReadCloser) io.ReadCloser { return &watched{rc, w} }

type watched struct {
	io.ReadCloser
	w *watch
}

func (b *watched) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.w.timer.Reset(b.w.limit)
	}
	if err != nil && err != io.EOF {
		err = b.w.cause(err)
	}
	return n, err
}

// stopOnClose ends the watch with the answer.
type stopOnClose struct {
	io.ReadCloser
	w *watch
}

func (b stopOnClose) Close() error {
	err := b.ReadCloser.Close()
	b.w.stop()
	return err
}
