package layers

import (
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/docker/reference"
)

// NormalizeName completes a reference as docker does: debian becomes
// docker.io/library/debian:latest. A reference with both a tag and a digest loses
// the tag. It returns ErrInvalidName for what is no reference.
func NormalizeName(name string) (string, error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", fmt.Errorf("%w: %q: %w", ErrInvalidName, name, err)
	}
	if d, ok := named.(reference.Digested); ok {
		named, err = reference.WithDigest(reference.TrimNamed(named), d.Digest())
		if err != nil {
			return "", fmt.Errorf("%w: %q: %w", ErrInvalidName, name, err)
		}
	}
	return reference.TagNameOnly(named).String(), nil
}

// SplitName splits a normalized name into its repository and its tag, or its
// repository and its digest.
func SplitName(name string) (repository, tag string, dgst digest.Digest) {
	if repo, d, ok := strings.Cut(name, "@"); ok {
		return repo, "", digest.Digest(d)
	}
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		return name[:i], name[i+1:], ""
	}
	return name, "", ""
}

// PathOfName returns the directory below images/ that shows the image of this
// name: the name with every ':' written '@', because ':' separates paths in too
// many programs. The last component always holds an '@' and no other does, so the
// rule can be reversed.
func PathOfName(name string) string { return strings.ReplaceAll(name, ":", "@") }
