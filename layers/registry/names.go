package registry

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/pkg/sysregistriesv2"
	"go.podman.io/image/v5/types"

	"github.com/layerfs/layerfs/layers"
)

// bareID is what nobody can have meant as a name.
var bareID = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Resolve returns the references that a name may stand for, in the order in which they
// are to be tried. A name with a registry stands for itself. A short one is looked up
// in the aliases of registries.conf, and else stands for that name in each of its
// unqualified-search registries. It returns layers.ErrInvalidName, or ErrShortName
// when nothing is configured.
func (c *Client) Resolve(name string) ([]reference.Named, error) {
	if bareID.MatchString(name) {
		return nil, fmt.Errorf("%w: %q is an image ID, which registries do not know", layers.ErrInvalidName, name)
	}
	if qualified(name) {
		named, err := parse(name)
		if err != nil {
			return nil, err
		}
		return []reference.Named{named}, nil
	}
	ref, err := reference.Parse(name)
	named, ok := ref.(reference.Named)
	if err != nil || !ok {
		return nil, fmt.Errorf("%w: %q: %w", layers.ErrInvalidName, name, err)
	}
	repo := named.Name()
	suffix := strings.TrimPrefix(name, repo)
	// The aliases are under names without a tag.
	alias, _, err := sysregistriesv2.ResolveShortNameAlias(c.sys, repo)
	if err != nil {
		return nil, fmt.Errorf("short name %q: %w", name, err)
	}
	if alias != nil {
		full, err := parse(alias.Name() + suffix)
		return []reference.Named{full}, err
	}
	return c.search(repo, suffix)
}

// search completes a short name with each of the configured registries.
func (c *Client) search(repo, suffix string) ([]reference.Named, error) {
	registries, origin, err := sysregistriesv2.UnqualifiedSearchRegistriesWithOrigin(c.sys)
	if err != nil {
		return nil, fmt.Errorf("registries.conf: %w", err)
	}
	if len(registries) == 0 {
		return nil, fmt.Errorf("%w: %q: there is no alias for it and no unqualified-search-registries in %s; write the name with its registry, such as docker.io/%s",
			ErrShortName, repo, sysregistriesv2.ConfigurationSourceDescription(c.sys), familiar(repo)+suffix)
	}
	mode, err := sysregistriesv2.GetShortNameMode(c.sys)
	if err != nil {
		return nil, fmt.Errorf("registries.conf: %w", err)
	}
	if mode == types.ShortNameModeEnforcing && len(registries) > 1 {
		return nil, fmt.Errorf("%w: %q: it may be in any of %s, and short-name-mode in %s forbids to guess; write the name with its registry",
			ErrShortName, repo, strings.Join(registries, ", "), origin)
	}
	var out []reference.Named
	for _, r := range registries {
		named, err := parse(r + "/" + repo + suffix)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(out, func(o reference.Named) bool { return o.String() == named.String() }) {
			out = append(out, named)
		}
	}
	return out, nil
}

// familiar is how a repository of Docker Hub is written in full.
func familiar(repo string) string {
	if strings.Contains(repo, "/") {
		return repo
	}
	return "library/" + repo
}

// qualified says whether a name begins with a registry: its first component has a dot
// or a port, or is localhost.
func qualified(name string) bool {
	first, _, ok := strings.Cut(name, "/")
	return ok && (strings.ContainsAny(first, ".:") || first == "localhost")
}

// parse reads a reference with a registry. docker.io/x is docker.io/library/x, a
// missing tag is latest, and a tag beside a digest is dropped.
func parse(name string) (reference.Named, error) {
	normal, err := layers.NormalizeName(name)
	if err != nil {
		return nil, err
	}
	named, err := reference.ParseNormalizedNamed(normal)
	if err != nil {
		return nil, fmt.Errorf("%w: %q: %w", layers.ErrInvalidName, name, err)
	}
	return named, nil
}

// A place is where a reference may be found.
type place struct {
	named    reference.Named
	insecure bool
}

// places returns where to look for an image, mirrors first.
func (c *Client) places(named reference.Named) ([]place, error) {
	reg, err := sysregistriesv2.FindRegistry(c.sys, named.String())
	if err != nil {
		return nil, fmt.Errorf("registries.conf: %w", err)
	}
	if reg == nil {
		return []place{{named: named}}, nil
	}
	// Asked before the name is rewritten: a location elsewhere does not unblock it.
	if reg.Blocked {
		return nil, fmt.Errorf("%s: %w: %s says so", named, ErrBlocked, sysregistriesv2.ConfigurationSourceDescription(c.sys))
	}
	sources, err := reg.PullSourcesFromReference(named)
	if err != nil {
		return nil, fmt.Errorf("registries.conf: %w", err)
	}
	var out []place
	for _, s := range sources {
		if target, err := sysregistriesv2.FindRegistry(c.sys, s.Reference.String()); err == nil && target != nil && target.Blocked {
			continue
		}
		out = append(out, place{s.Reference, s.Endpoint.Insecure})
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: %w: %s says so of all its locations", named, ErrBlocked, sysregistriesv2.ConfigurationSourceDescription(c.sys))
	}
	return out, nil
}
