package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/pkg/sysregistriesv2"
	"golang.org/x/sync/errgroup"

	"github.com/layerfs/layerfs/layers"
)

// PushOptions change how an image is sent; nil means the defaults.
type PushOptions struct {
	// Repositories are, for each blob, normalized names of repositories that may have
	// it. One in the same registry is asked to share it.
	Repositories map[digest.Digest][]string
	// ByDigest stores the manifest under its digest instead of the tag.
	ByDigest bool
}

// Push sends an image to a repository and returns the digest of its manifest, which is
// that of the source. What the registry has is not sent again: when it has the manifest
// under the name, nothing but that is asked.
func (c *Client) Push(ctx context.Context, src layers.Source, named reference.Named, o *PushOptions) (digest.Digest, error) {
	if o == nil {
		o = &PushOptions{}
	}
	e, err := c.target(ctx, named)
	if err != nil {
		return "", err
	}
	raw, desc, err := src.Manifest(ctx)
	if err != nil {
		return "", err
	}
	ref := refOf(named)
	if o.ByDigest {
		ref = desc.Digest.String()
	}
	if d, ok := named.(reference.Digested); ok && d.Digest() != desc.Digest {
		return "", fmt.Errorf("%w: %s: the manifest to push has the digest %s; push to a tag", layers.ErrInvalidName, named, desc.Digest)
	}
	if e.hasManifest(ctx, ref, desc.Digest) {
		return desc.Digest, nil
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	p := pusher{e: e, src: src, o: o}
	if err := p.blobs(ctx, raw); err != nil {
		return "", fmt.Errorf("%s: %w", named, err)
	}
	return desc.Digest, e.putManifest(ctx, ref, raw, desc)
}

// target returns the repository to push to: always the one that the name says.
func (c *Client) target(ctx context.Context, named reference.Named) (*endpoint, error) {
	reg, err := sysregistriesv2.FindRegistry(c.sys, named.String())
	if err != nil {
		return nil, fmt.Errorf("registries.conf: %w", err)
	}
	if reg != nil && reg.Blocked {
		return nil, fmt.Errorf("%s: %w: %s says so", named, ErrBlocked, sysregistriesv2.ConfigurationSourceDescription(c.sys))
	}
	return c.endpoint(ctx, named, reg != nil && reg.Insecure, true)
}

// hasManifest says whether the registry has the manifest under the tag or digest. An
// error means no: sending it will show what is wrong.
func (e *endpoint) hasManifest(ctx context.Context, ref string, d digest.Digest) bool {
	resp, err := e.do(ctx, request{
		method: http.MethodHead, path: "manifests/" + ref, header: http.Header{"Accept": accept}, want: []int{http.StatusOK},
	})
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.Header.Get("Docker-Content-Digest") == d.String()
}

func (e *endpoint) putManifest(ctx context.Context, ref string, raw []byte, desc ocispec.Descriptor) error {
	resp, err := e.do(ctx, request{
		method: http.MethodPut, path: "manifests/" + ref, header: http.Header{"Content-Type": {desc.MediaType}},
		body: func() (io.ReadCloser, int64, error) {
			return io.NopCloser(strings.NewReader(string(raw))), int64(len(raw)), nil
		},
		want: []int{http.StatusCreated, http.StatusOK, http.StatusAccepted}, patient: true,
	})
	if err != nil {
		return err
	}
	resp.Body.Close()
	if got := resp.Header.Get("Docker-Content-Digest"); strings.HasPrefix(got, "sha256:") && got != desc.Digest.String() {
		return fmt.Errorf("%w: %s: the registry has stored the manifest %s as %s", layers.ErrVerification, e.named.Name(), desc.Digest, got)
	}
	return nil
}

// A pusher sends the blobs of one manifest.
type pusher struct {
	e   *endpoint
	src layers.Source
	o   *PushOptions
}

// blobs sends the config and the layers, several at once.
func (p *pusher) blobs(ctx context.Context, raw []byte) error {
	var m ocispec.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return fmt.Errorf("%w: manifest: %w", layers.ErrInvalidImage, err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(p.e.c.o.Parallel)
	sent := map[digest.Digest]bool{}
	for i, desc := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		if sent[desc.Digest] || len(desc.URLs) > 0 { // the registry gets those from elsewhere
			continue
		}
		sent[desc.Digest] = true
		g.Go(func() error {
			// The config has no line of its own.
			if err := p.blob(ctx, desc, Progress{Index: i - 1, Count: len(m.Layers), Total: desc.Size}); err != nil {
				return fmt.Errorf("blob %s: %w", desc.Digest, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// blob sends a blob unless the registry has it.
func (p *pusher) blob(ctx context.Context, desc ocispec.Descriptor, at Progress) error {
	resp, err := p.e.do(ctx, request{
		method: http.MethodHead, path: "blobs/" + desc.Digest.String(), want: []int{http.StatusOK, http.StatusNotFound},
	})
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		p.report(at, at.Total, "already there")
		return nil
	}
	session, from, err := p.mount(ctx, desc)
	if err != nil {
		return err
	}
	if from != "" {
		p.report(at, at.Total, "shared with "+from)
		return nil
	}
	for try := 0; ; try++ {
		err := p.upload(ctx, session, desc, at)
		if err == nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		if try+1 >= attempts || !transient(err) {
			return p.e.explain(err)
		}
		if err := p.e.c.pause(ctx, try, err); err != nil {
			return err
		}
		session = nil // what became of it nobody knows
	}
}

// maxMounts is how many repositories are asked to share a blob.
const maxMounts = 3

// mount asks the registry to share a blob of another repository. When it does not, it
// has begun an upload instead.
func (p *pusher) mount(ctx context.Context, desc ocispec.Descriptor) (session *url.URL, from string, err error) {
	tried := 0
	for _, name := range p.o.Repositories[desc.Digest] {
		other, err := reference.ParseNormalizedNamed(name)
		if err != nil || reference.Domain(other) != reference.Domain(p.e.named) || other.Name() == p.e.named.Name() || tried >= maxMounts {
			continue
		}
		tried++
		path := reference.Path(other)
		resp, err := p.e.do(ctx, request{
			method: http.MethodPost, path: "blobs/uploads/", query: url.Values{"mount": {desc.Digest.String()}, "from": {path}},
			scope: "repository:" + path + ":pull", want: []int{http.StatusCreated, http.StatusAccepted},
		})
		if err != nil {
			if ctx.Err() != nil {
				return nil, "", ctx.Err()
			}
			continue // perhaps that repository is not ours to read
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusCreated {
			return nil, path, nil
		}
		if session, err = p.e.location(resp); err != nil {
			return nil, "", err
		}
	}
	return session, "", nil
}

// upload sends a blob in one piece.
func (p *pusher) upload(ctx context.Context, session *url.URL, desc ocispec.Descriptor, at Progress) error {
	if session == nil {
		resp, err := p.e.once(ctx, request{method: http.MethodPost, path: "blobs/uploads/", want: []int{http.StatusAccepted}})
		if err != nil {
			return err
		}
		resp.Body.Close()
		if session, err = p.e.location(resp); err != nil {
			return err
		}
	}
	resp, err := p.e.once(ctx, request{
		method: http.MethodPatch, url: session, header: http.Header{"Content-Type": {"application/octet-stream"}},
		body: func() (io.ReadCloser, int64, error) {
			rc, err := p.src.Blob(ctx, desc)
			return &counted{rc, p, at, 0}, desc.Size, err
		},
		want: []int{http.StatusAccepted, http.StatusNoContent}, patient: true,
	})
	if err != nil {
		return err
	}
	resp.Body.Close()
	if session, err = p.e.location(resp); err != nil {
		return err
	}
	q := session.Query()
	q.Set("digest", desc.Digest.String())
	session.RawQuery = q.Encode()
	resp, err = p.e.once(ctx, request{
		method: http.MethodPut, url: session, want: []int{http.StatusCreated, http.StatusNoContent}, patient: true,
	})
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// location is where an upload goes on.
func (e *endpoint) location(resp *http.Response) (*url.URL, error) {
	u, err := resp.Location()
	if err != nil {
		return nil, fmt.Errorf("%w: it does not say where to upload to: %w", ErrUnavailable, err)
	}
	if u.Host == e.h.server() {
		u.Scheme, _ = e.h.base() // proxies that end TLS often say it wrong
	}
	return u, nil
}

func (p *pusher) report(at Progress, done int64, note string) {
	if fn := p.e.c.o.Progress; fn != nil && at.Index >= 0 {
		at.Done, at.Note = done, note
		fn(at)
	}
}

// A counted blob reports how much of it has been read.
type counted struct {
	io.ReadCloser
	p  *pusher
	at Progress
	n  int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.ReadCloser.Read(b)
	c.n += int64(n)
	if n > 0 {
		c.p.report(c.at, c.n, "")
	}
	return n, err
}
