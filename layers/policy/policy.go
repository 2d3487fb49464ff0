// Package policy decides whether an image may come into the store, by the policy.json
// that podman, skopeo and CRI-O obey (containers-policy.json(5)).
//
// A requirement that is not understood refuses the images that it is about, by name; it
// is never passed over. Understood are insecureAcceptAnything, reject, and signedBy with
// simple signing, the signature being an OpenPGP message over a small JSON document.
package policy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/docker/reference"
)

// ErrRejected is returned when the policy does not let an image in.
var ErrRejected = errors.New("rejected by the signature policy")

// A Policy is a policy.json.
type Policy struct {
	path string // for messages
	def  []requirement
	// by transport, then by scope
	transports map[string]map[string][]requirement
}

// An Image is what a decision is about.
type Image struct {
	// Transport is the name of containers tools for where the image is: docker for a
	// registry, oci, oci-archive, docker-archive, dir.
	Transport string
	// Name is the reference in a registry, nil elsewhere.
	Name reference.Named
	// Scopes are what the policy may call the image, the most exact first.
	Scopes []string
	// Manifest is the digest of the manifest that will be used.
	Manifest digest.Digest
	// Signatures returns the signatures that there are of the manifest; nil means none.
	Signatures func(context.Context) ([][]byte, error)
}

// defaultPaths are where policy.json is looked for.
func defaultPaths() []string {
	var paths []string
	if home, err := os.UserHomeDir(); err == nil {
		paths = append(paths, filepath.Join(home, ".config/containers/policy.json"))
	}
	return append(paths, "/etc/containers/policy.json")
}

// Load reads a policy file; "" means the user's, or else that of the machine. Where
// there is none, everything is let in.
func Load(path string) (*Policy, error) {
	paths := defaultPaths()
	if path != "" {
		paths = []string{path}
	}
	for _, p := range paths {
		raw, err := os.ReadFile(p)
		if errors.Is(err, fs.ErrNotExist) && path == "" {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("signature policy: %w", err)
		}
		return parse(p, raw)
	}
	return &Policy{path: "no policy.json", def: []requirement{anything{}}}, nil
}

// parse reads policy.json. A field that is not known may be what makes the policy
// strict, so it is an error.
func parse(path string, raw []byte) (*Policy, error) {
	var doc struct {
		Default    []json.RawMessage                       `json:"default"`
		Transports map[string]map[string][]json.RawMessage `json:"transports"`
	}
	if err := strict(raw, &doc); err != nil {
		return nil, fmt.Errorf("signature policy %s: %w", path, err)
	}
	p := &Policy{path: path, transports: map[string]map[string][]requirement{}}
	var err error
	if p.def, err = requirements(doc.Default); err != nil {
		return nil, fmt.Errorf("signature policy %s: default: %w", path, err)
	}
	for transport, scopes := range doc.Transports {
		p.transports[transport] = map[string][]requirement{}
		for scope, list := range scopes {
			if p.transports[transport][scope], err = requirements(list); err != nil {
				return nil, fmt.Errorf("signature policy %s: %s %q: %w", path, transport, scope, err)
			}
		}
	}
	return p, nil
}

func strict(raw []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if dec.More() {
		return errors.New("something follows the JSON document")
	}
	return nil
}

func requirements(list []json.RawMessage) ([]requirement, error) {
	if len(list) == 0 {
		return nil, errors.New("a list of requirements is missing or empty")
	}
	var out []requirement
	for _, raw := range list {
		r, err := parseRequirement(raw)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

// Check returns ErrRejected unless the image meets every requirement of its scope.
func (p *Policy) Check(ctx context.Context, img *Image) error {
	list, scope := p.lookup(img)
	for _, r := range list {
		if err := r.check(ctx, img); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("%w: %s (%s): %w", ErrRejected, p.path, scope, err)
		}
	}
	return nil
}

// lookup finds the requirements for the most exact scope that the policy names.
func (p *Policy) lookup(img *Image) (list []requirement, scope string) {
	scopes := p.transports[img.Transport]
	for _, s := range img.Scopes {
		if list, ok := scopes[s]; ok {
			return list, s
		}
	}
	if list, ok := scopes[""]; ok {
		return list, "transport " + img.Transport
	}
	return p.def, "default"
}
