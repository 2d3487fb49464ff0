package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/layers"
)

// A fetch brings one blob into a partial file, in a goroutine, and lets it be read
// meanwhile.
type fetch struct {
	s     *Source
	desc  ocispec.Descriptor
	index int          // in the manifest
	kept  atomic.Int64 // bytes that were there when the fetch began
	ended chan struct{}

	mu    sync.Mutex // guards all below
	moved sync.Cond
	file  *layers.Partial
	have  int64 // bytes in the file
	done  bool
	err   error // set with done
}

func newFetch(s *Source, desc ocispec.Descriptor) *fetch {
	f := &fetch{s: s, desc: desc, ended: make(chan struct{})}
	f.moved.L = &f.mu
	return f
}

// run fetches the blob; it ends with all of it, an error, or ctx.
func (f *fetch) run(ctx context.Context) {
	defer close(f.ended)
	err := f.fetch(ctx)
	f.mu.Lock()
	f.done, f.err = true, err
	f.mu.Unlock()
	f.moved.Broadcast()
}

func (f *fetch) fetch(ctx context.Context) error {
	select {
	case f.s.slots <- struct{}{}:
		defer func() { <-f.s.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := f.open(); err != nil {
		return err
	}
	e := f.s.r.e
	for try := 0; f.have < f.desc.Size; try++ {
		before := f.have
		err := f.more(ctx, e)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			continue
		case !transient(err):
			return fmt.Errorf("blob %s: %w", f.desc.Digest, e.explain(err))
		case f.have > before:
			try = 0 // it is getting on
		case try+1 >= attempts:
			return fmt.Errorf("blob %s: %w; what was fetched is kept, pull again to go on", f.desc.Digest, e.explain(err))
		}
		if err := e.c.pause(ctx, try, err); err != nil {
			return err
		}
	}
	return nil
}

// open opens the file and takes over what is in it.
func (f *fetch) open() error {
	file, err := f.s.store.OpenPartial(f.desc.Digest)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err == nil && info.Size() > f.desc.Size { // of what it says, not of this blob
		err = file.Truncate(0)
	}
	if err != nil {
		return errors.Join(err, file.Discard())
	}
	if info.Size() <= f.desc.Size {
		f.kept.Store(info.Size())
	}
	f.mu.Lock()
	f.file, f.have = file, f.kept.Load()
	f.mu.Unlock()
	f.moved.Broadcast()
	f.report()
	return nil
}

// more asks for what is missing and takes what comes.
func (f *fetch) more(ctx context.Context, e *endpoint) error {
	r := request{method: http.MethodGet, path: "blobs/" + f.desc.Digest.String(), want: []int{http.StatusOK}}
	if f.have > 0 {
		r.header = http.Header{"Range": {fmt.Sprintf("bytes=%d-", f.have)}}
		r.want = append(r.want, http.StatusPartialContent)
	}
	resp, err := e.once(ctx, r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	skip, err := f.startOf(resp)
	if err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, resp.Body, skip); err != nil {
		return noEOF(err)
	}
	return f.take(resp.Body)
}

// startOf returns how many bytes of an answer are there already: a server may send
// more than was asked for, but not something else.
func (f *fetch) startOf(resp *http.Response) (skip int64, err error) {
	start, length := int64(0), resp.ContentLength
	if resp.StatusCode == http.StatusPartialContent {
		first, _, _ := strings.Cut(strings.TrimPrefix(resp.Header.Get("Content-Range"), "bytes "), "-")
		if start, err = strconv.ParseInt(first, 10, 64); err != nil || start > f.have || start < 0 {
			return 0, fmt.Errorf("%w: the registry answers a request for the bytes from %d on with the range %q", ErrUnavailable, f.have, resp.Header.Get("Content-Range"))
		}
	}
	if length >= 0 && start+length != f.desc.Size {
		return 0, fmt.Errorf("%w: blob %s has %d bytes in the registry, but its descriptor says %d",
			layers.ErrVerification, f.desc.Digest, start+length, f.desc.Size)
	}
	return f.have - start, nil
}

// take writes what comes to the file.
func (f *fetch) take(r io.Reader) error {
	buf := make([]byte, 256<<10)
	for {
		n, err := io.ReadAtLeast(r, buf, 1)
		if f.have+int64(n) > f.desc.Size {
			return fmt.Errorf("%w: blob %s is longer than the %d bytes that its descriptor says", layers.ErrVerification, f.desc.Digest, f.desc.Size)
		}
		if n > 0 {
			if _, werr := f.file.WriteAt(buf[:n], f.have); werr != nil {
				return werr
			}
			f.mu.Lock()
			f.have += int64(n)
			f.mu.Unlock()
			f.moved.Broadcast()
			f.report()
		}
		if err == io.EOF && f.have == f.desc.Size {
			return nil
		}
		if err != nil {
			return noEOF(err)
		}
	}
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (f *fetch) report() {
	if fn := f.s.r.c.o.Progress; fn != nil {
		fn(Progress{Index: f.index, Count: len(f.s.layers), Done: f.have, Total: f.desc.Size, Kept: f.kept.Load()})
	}
}

// close waits for the end of the fetch and closes its file. What is complete goes when
// the load was successful, because the store has it then.
func (f *fetch) close(discard bool) error {
	<-f.ended
	if f.file == nil {
		return nil
	}
	if discard || errors.Is(f.err, layers.ErrVerification) {
		return f.file.Discard()
	}
	return f.file.Close()
}

// reader reads the blob from its beginning, as it comes.
func (f *fetch) reader(ctx context.Context) io.ReadCloser {
	r := &fetchReader{f: f, ctx: ctx}
	r.stop = context.AfterFunc(ctx, func() {
		f.mu.Lock() // a reader that has not seen the end of ctx waits by now
		defer f.mu.Unlock()
		f.moved.Broadcast()
	})
	return r
}

type fetchReader struct {
	f    *fetch
	ctx  context.Context
	stop func() bool
	off  int64
}

// Read waits for bytes to come.
func (r *fetchReader) Read(p []byte) (int, error) {
	f := r.f
	f.mu.Lock()
	for r.off >= f.have && !f.done && r.ctx.Err() == nil {
		f.moved.Wait()
	}
	have, err := f.have, f.err
	f.mu.Unlock()
	switch {
	case r.ctx.Err() != nil:
		return 0, r.ctx.Err()
	case r.off < have:
		n, err := f.file.ReadAt(p[:min(int64(len(p)), have-r.off)], r.off)
		r.off += int64(n)
		return n, err
	case err != nil:
		return 0, err
	}
	return 0, io.EOF
}

// Partial implements layers.Fetched.
func (r *fetchReader) Partial(ctx context.Context) *layers.Partial {
	f := r.f
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.file == nil && !f.done && ctx.Err() == nil && r.ctx.Err() == nil {
		f.moved.Wait()
	}
	return f.file
}

// Close ends the reading, not the fetch.
func (r *fetchReader) Close() error {
	r.stop()
	return nil
}
