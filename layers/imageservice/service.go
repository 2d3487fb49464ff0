// Package imageservice is what a container engine wants of an image store, as CRI-O and
// the image service of Kubernetes have it: list, status, pull, remove, and the rules by
// which a name given by a person becomes an image.
//
// # Names
//
// A name is resolved in this order. The beginning of an image ID, of at least three
// digits and fitting one image only, is that image, whatever else it might be. A name
// with a registry stands for itself. A short name stands for its alias, or for that name
// in each of the configured registries, in their order; docker.io gets library/ where
// the name has no path. Where no registry is configured a short name is an error, and so
// is a bare ID of 64 digits that no image has.
//
// # Lists
//
// A list is made once for each state of the store, as its generation tells, and what it
// needs of the configs of images is remembered, because configs never change. All methods
// may be called from several goroutines, and other processes may change the store
// meanwhile.
package imageservice

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/layerfs/layerfs/layers"
	"github.com/layerfs/layerfs/layers/registry"
)

// An Image is an image as the service tells of it.
type Image struct {
	ID           digest.Digest `json:"id"`
	Name         string        `json:"name,omitempty"` // the first of its names
	RepoTags     []string      `json:"repo_tags"`
	RepoDigests  []string      `json:"repo_digests"`
	Size         int64         `json:"size"`
	Digest       digest.Digest `json:"digest"`        // of the manifest
	ConfigDigest digest.Digest `json:"config_digest"` // of the config
	User         string        `json:"user"`          // USER[:GROUP] that the config runs as
	Created      *time.Time    `json:"created,omitempty"`
}

// A Service is the image service of one store.
type Service struct {
	st     *layers.Store
	client *registry.Client

	mu         sync.Mutex // guards all below
	list       []Image
	generation uint64
	known      bool                     // list is that of generation
	users      map[digest.Digest]string // by the digest of the config
}

// New returns the service of a store. The store is closed by the caller, after his last
// call.
func New(st *layers.Store, o *registry.Options) (*Service, error) {
	client, err := registry.New(o)
	if err != nil {
		return nil, err
	}
	return &Service{st: st, client: client, users: map[digest.Digest]string{}}, nil
}

// List returns all images, the newest first. With a filter, which is a name or an ID, it
// returns the image that this stands for, or none. The caller must not change what is
// returned.
func (s *Service) List(ctx context.Context, filter string) ([]Image, error) {
	if filter != "" {
		img, err := s.Status(ctx, filter)
		if errors.Is(err, layers.ErrImageUnknown) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		return []Image{*img}, nil
	}
	// Asked first: a change during the listing makes the next call list again.
	generation, err := s.st.Generation(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known && s.generation == generation {
		return s.list, nil
	}
	images, err := s.st.Images(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.readUsersLocked(images); err != nil {
		return nil, err
	}
	list := make([]Image, len(images))
	for i := range images {
		if list[i], err = s.describeLocked(&images[i]); err != nil {
			return nil, err
		}
	}
	s.list, s.generation, s.known = list, generation, true
	return list, nil
}

// Status returns the image that a name or an ID stands for, or layers.ErrImageUnknown.
func (s *Service) Status(ctx context.Context, nameOrID string) (*Image, error) {
	img, _, err := s.find(ctx, nameOrID)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out, err := s.describeLocked(img)
	return &out, err
}

// describeLocked makes the answer about one image.
//
// Preconditions: s.mu is held.
func (s *Service) describeLocked(img *layers.Image) (Image, error) {
	out := Image{
		ID: img.ID, RepoTags: img.RepoTags(), RepoDigests: img.RepoDigests(), Size: img.Size,
		ConfigDigest: img.Config.Digest, Created: img.Created,
	}
	if len(img.Names) > 0 {
		out.Name = img.Names[0].Name
	}
	if len(img.Manifests) > 0 {
		out.Digest = img.Manifest(out.Name).Descriptor.Digest
	}
	user, ok := s.users[img.Config.Digest]
	if !ok && img.Config.Digest != "" {
		var err error
		if user, err = s.readUser(img.Config.Digest); err != nil {
			return out, err
		}
		s.users[img.Config.Digest] = user
	}
	out.User = user
	return out, nil
}

// readChunk is how many configs one goroutine reads.
const readChunk = 64

// readUsersLocked reads the users of all images of which they are not known, on all
// cores: that takes most of the time of a first list.
//
// Preconditions: s.mu is held.
func (s *Service) readUsersLocked(images []layers.Image) error {
	var unknown []digest.Digest
	for i := range images {
		d := images[i].Config.Digest
		if _, ok := s.users[d]; !ok && d != "" {
			unknown = append(unknown, d)
		}
	}
	users := make([]string, len(unknown))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for from := 0; from < len(unknown); from += readChunk {
		part, out := unknown[from:min(from+readChunk, len(unknown))], users[from:]
		g.Go(func() (err error) {
			for i, d := range part {
				if out[i], err = s.readUser(d); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i, d := range unknown {
		s.users[d] = users[i]
	}
	return nil
}

// readUser reads the user of a config, and nothing else of it.
func (s *Service) readUser(config digest.Digest) (string, error) {
	raw, err := s.st.Blob(config)
	if err != nil {
		return "", err
	}
	var c struct {
		Config struct{ User string }
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return "", fmt.Errorf("%w: config %s: %w", layers.ErrDamaged, config, err)
	}
	return c.Config.User, nil
}

// anyID is the beginning of an ID.
var anyID = regexp.MustCompile(`^[0-9a-f]{3,64}$`)

// find returns an image, and the name by which it was found, empty for an ID.
func (s *Service) find(ctx context.Context, nameOrID string) (*layers.Image, string, error) {
	if id, err := s.byID(ctx, nameOrID); err != nil || id != nil {
		return id, "", err
	}
	names, err := s.client.Resolve(nameOrID)
	if errors.Is(err, registry.ErrShortName) {
		// Nothing need be configured for what is here already, under the name that it has.
		img, err := s.st.Image(ctx, nameOrID)
		return img, nameOrID, err
	}
	if err != nil {
		return nil, "", err
	}
	for _, named := range names {
		img, err := s.st.Image(ctx, named.String())
		if err == nil || !errors.Is(err, layers.ErrImageUnknown) {
			return img, named.String(), err
		}
	}
	return nil, "", fmt.Errorf("%w: %q", layers.ErrImageUnknown, nameOrID)
}

// byID returns the image whose ID begins with the digits, nil when it is no beginning of
// one ID only.
func (s *Service) byID(ctx context.Context, digits string) (*layers.Image, error) {
	digits = strings.TrimPrefix(digits, "sha256:")
	if !anyID.MatchString(digits) {
		return nil, nil
	}
	img, err := s.st.ImageByID(ctx, digits)
	if errors.Is(err, layers.ErrImageUnknown) || errors.Is(err, layers.ErrAmbiguous) {
		return nil, nil
	}
	return img, err
}

// ResolveNames returns what a name stands for: the whole ID of an image of the store, or
// normalized references in the order in which they are to be tried.
func (s *Service) ResolveNames(ctx context.Context, name string) ([]string, error) {
	img, err := s.byID(ctx, name)
	if err != nil {
		return nil, err
	}
	if img != nil {
		return []string{img.ID.Encoded()}, nil
	}
	names, err := s.client.Resolve(name)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, named := range names {
		out = append(out, named.String())
	}
	return out, nil
}
