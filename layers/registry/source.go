package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/layers"
)

// A Partials keeps what has been fetched of a layer; *layers.Store is one.
type Partials interface {
	OpenPartial(d digest.Digest) (*layers.Partial, error)
}

// A Source is one image in a registry. It implements layers.Source and
// layers.Announced.
type Source struct {
	r        *Remote
	instance Instance
	store    Partials
	ctx      context.Context // of all fetches; ended by Close
	cancel   context.CancelFunc
	slots    chan struct{} // one for each fetch that may run

	mu      sync.Mutex // guards all below
	raw     []byte
	layers  []ocispec.Descriptor
	fetches map[digest.Digest]*fetch
}

// Open returns the source of an instance. Layers are fetched into partial files of the
// store. The caller closes the source.
func (r *Remote) Open(ctx context.Context, in Instance, store Partials) *Source {
	s := &Source{r: r, instance: in, store: store, raw: in.raw, fetches: map[digest.Digest]*fetch{}}
	s.ctx, s.cancel = context.WithCancel(ctx)
	s.slots = make(chan struct{}, r.c.o.Parallel)
	return s
}

// Manifest returns the image's manifest.
func (s *Source) Manifest(ctx context.Context) ([]byte, ocispec.Descriptor, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.raw == nil {
		m, err := s.r.e.getManifest(ctx, s.instance.Descriptor.Digest.String())
		if err != nil {
			return nil, ocispec.Descriptor{}, err
		}
		s.raw = m.raw
		s.instance.Descriptor.MediaType = m.desc.MediaType
	}
	var m ocispec.Manifest
	if json.Unmarshal(s.raw, &m) == nil { // package layers says what is wrong with it
		s.layers = m.Layers
	}
	desc := s.instance.Descriptor
	if isSchema1(desc.MediaType) || isIndex(desc.MediaType) {
		return s.raw, desc, nil
	}
	return s.raw, ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}, nil
}

// Announce implements layers.Announced: it begins to fetch the layers.
func (s *Source) Announce(list []ocispec.Descriptor) {
	for _, desc := range list {
		s.start(desc)
	}
}

// start begins to fetch a layer unless that has been done.
func (s *Source) start(desc ocispec.Descriptor) *fetch {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.fetches[desc.Digest]; f != nil {
		return f
	}
	f := newFetch(s, desc)
	for i, d := range s.layers {
		if d.Digest == desc.Digest {
			f.index = i
			break
		}
	}
	s.fetches[desc.Digest] = f
	go f.run(s.ctx)
	return f
}

// Blob opens a blob. A layer is read from its file while it is fetched; anything else
// is small and comes directly.
func (s *Source) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if s.isLayer(desc.Digest) {
		if len(desc.URLs) > 0 && desc.Size == 0 {
			return nil, fmt.Errorf("%w: foreign layer %s", layers.ErrInvalidLayer, desc.Digest)
		}
		return s.start(desc).reader(ctx), nil
	}
	raw, err := s.r.e.getSmallBlob(ctx, desc)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(raw)), nil
}

func (s *Source) isLayer(d digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.layers {
		if l.Digest == d {
			return true
		}
	}
	return false
}

// getSmallBlob fetches a config whole.
func (e *endpoint) getSmallBlob(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	if desc.Size > maxDocument {
		return nil, fmt.Errorf("blob %s: %w: %d bytes", desc.Digest, ErrTooLarge, desc.Size)
	}
	var raw []byte
	for try := 0; ; try++ {
		resp, err := e.do(ctx, request{method: http.MethodGet, path: "blobs/" + desc.Digest.String(), want: []int{http.StatusOK}})
		if err != nil {
			return nil, fmt.Errorf("blob %s: %w", desc.Digest, err)
		}
		raw, err = readDocument(resp.Body)
		resp.Body.Close()
		if err == nil || try+1 >= attempts || !transient(err) {
			return raw, err
		}
		if err := e.c.pause(ctx, try, err); err != nil {
			return nil, err
		}
	}
}

// Close ends all fetches and waits for them. What they have fetched stays for the next
// time, or with discard goes.
func (s *Source) Close(discard bool) error {
	s.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, f := range s.fetches {
		errs = append(errs, f.close(discard))
	}
	return errors.Join(errs...)
}

// Resumed says whether some of the layers had been fetched by somebody else, before.
func (s *Source) Resumed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.fetches {
		if f.kept.Load() > 0 {
			return true
		}
	}
	return false
}
