package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/image/v5/docker/reference"

	"github.com/layerfs/layerfs/layers"
)

// maxDocument limits manifests, indexes and configs. Registries refuse manifests above
// 4 MiB.
const maxDocument = 8 << 20

// accept are the kinds of manifest that are understood, and schema 1, so that it can
// be refused by name.
var accept = []string{
	ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex,
	layers.MediaTypeDockerManifest, layers.MediaTypeDockerManifestList,
	layers.MediaTypeDockerSchema1Sign, layers.MediaTypeDockerSchema1,
}

// A manifest is a manifest or an index as a registry gave it; it has the digest that it
// was asked by, if it was.
type manifest struct {
	raw  []byte
	desc ocispec.Descriptor
}

// getManifest fetches a manifest by tag or digest.
func (e *endpoint) getManifest(ctx context.Context, ref string) (*manifest, error) {
	resp, err := e.do(ctx, request{
		method: http.MethodGet, path: "manifests/" + ref, header: http.Header{"Accept": accept}, want: []int{http.StatusOK},
	})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := readDocument(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("manifest %s:%s: %w", e.named.Name(), ref, err)
	}
	m := &manifest{raw: raw}
	m.desc = ocispec.Descriptor{MediaType: mediaType(raw, resp.Header.Get("Content-Type")), Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	want := resp.Header.Get("Docker-Content-Digest")
	if strings.Contains(ref, ":") {
		want = ref
	}
	// Schema 1 is named by a digest of something else, and refused anyway. A header with
	// another algorithm cannot be compared.
	if !isSchema1(m.desc.MediaType) && strings.HasPrefix(want, "sha256:") && want != string(m.desc.Digest) {
		return nil, fmt.Errorf("%w: %s: the registry sent a manifest with the digest %s instead of %s", layers.ErrVerification, e.named.Name(), m.desc.Digest, want)
	}
	return m, nil
}

func readDocument(r io.Reader) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxDocument+1))
	if err == nil && len(raw) > maxDocument {
		err = fmt.Errorf("%w: it has more than the %d bytes that a manifest or config may have", ErrTooLarge, maxDocument)
	}
	return raw, err
}

// mediaType believes the document more than the server.
func mediaType(raw []byte, header string) string {
	var doc struct {
		MediaType string            `json:"mediaType"`
		Manifests []json.RawMessage `json:"manifests"`
		Version   int               `json:"schemaVersion"`
	}
	header, _, _ = strings.Cut(header, ";")
	switch err := json.Unmarshal(raw, &doc); {
	case err != nil:
		return header
	case doc.Version == 1:
		return layers.MediaTypeDockerSchema1
	case doc.MediaType != "":
		return doc.MediaType
	case doc.Manifests != nil:
		return ocispec.MediaTypeImageIndex
	}
	return header
}

func isIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == layers.MediaTypeDockerManifestList
}

func isSchema1(mediaType string) bool {
	return mediaType == layers.MediaTypeDockerSchema1 || mediaType == layers.MediaTypeDockerSchema1Sign
}

// refOf is what a reference is asked by: its digest or its tag.
func refOf(named reference.Named) string {
	switch r := named.(type) {
	case reference.Digested:
		return r.Digest().String()
	case reference.Tagged:
		return r.Tag()
	}
	return "latest"
}

// A Remote is what a name stands for in a registry.
type Remote struct {
	// Name is the normalized reference that was asked for.
	Name string
	// Descriptor describes the manifest or index, Raw are its bytes.
	Descriptor ocispec.Descriptor
	Raw        []byte

	c     *Client
	e     *endpoint
	named reference.Named
}

// Find fetches the manifest or index of a reference, from a mirror when one has it. A
// mirror that does not answer is passed over.
func (c *Client) Find(ctx context.Context, named reference.Named) (*Remote, error) {
	places, err := c.places(named)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, p := range places {
		e, err := c.endpoint(ctx, p.named, p.insecure, false)
		if err != nil {
			return nil, err
		}
		m, err := e.getManifest(ctx, refOf(p.named))
		if err == nil {
			return &Remote{Name: named.String(), Descriptor: m.desc, Raw: m.raw, c: c, e: e, named: named}, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		errs = append(errs, err)
	}
	// The last place is the registry itself, whose word counts.
	last := errs[len(errs)-1]
	if len(errs) == 1 || errors.Is(last, ErrNotFound) {
		return nil, last
	}
	return nil, fmt.Errorf("%w (before it, %d mirrors: %w)", last, len(errs)-1, errs[0])
}

// FindAny tries references in their order and returns the first that a registry has.
func (c *Client) FindAny(ctx context.Context, list []reference.Named) (*Remote, error) {
	var errs []error
	for _, named := range list {
		r, err := c.Find(ctx, named)
		if err == nil {
			return r, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		errs = append(errs, err)
	}
	if len(errs) == 1 {
		return nil, errs[0]
	}
	return nil, joined(errs)
}

// joined is one line about several tries.
func joined(errs []error) error {
	var b strings.Builder
	for i, err := range errs {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(err.Error())
	}
	return &tries{b.String(), errs}
}

type tries struct {
	text string
	errs []error
}

func (t *tries) Error() string   { return t.text }
func (t *tries) Unwrap() []error { return t.errs }
