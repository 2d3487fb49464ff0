package layers

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
)

// A DiffID names a layer: the sha256 of its uncompressed tar (image-spec config.md).
type DiffID digest.Digest

// A ChainID names a stack of layers (image-spec config.md, "Layer ChainID").
type ChainID digest.Digest

func (d DiffID) String() string  { return string(d) }
func (c ChainID) String() string { return string(c) }

func (d DiffID) digest() digest.Digest { return digest.Digest(d) }

// Hex returns the 64 hexadecimal digits.
func (d DiffID) Hex() string { return digest.Digest(d).Encoded() }

// Chain returns the ChainID of the stack, given bottom first; an empty stack has
// the empty ChainID.
func Chain(stack []DiffID) ChainID {
	var chain ChainID
	for _, d := range stack {
		chain = chain.push(d)
	}
	return chain
}

// push returns the ChainID of the stack with one more layer on top.
func (c ChainID) push(d DiffID) ChainID {
	if c == "" {
		return ChainID(d)
	}
	return ChainID(digest.FromString(string(c) + " " + string(d)))
}

// parseDigest accepts sha256 digests in their canonical form only: they become
// file names.
func parseDigest(s string) (digest.Digest, error) {
	d, err := digest.Parse(s)
	if err != nil {
		return "", fmt.Errorf("digest %q: %w", s, err)
	}
	if d.Algorithm() != digest.SHA256 {
		return "", fmt.Errorf("digest %q: only sha256 is supported", s)
	}
	return d, nil
}

// sumOf returns the bytes of a digest that parseDigest has accepted, or that the
// index gave.
func sumOf(d digest.Digest) (sum [32]byte) {
	_, _ = hex.Decode(sum[:], []byte(d.Encoded()))
	return sum
}

func isHex(s string) bool {
	return s != "" && strings.Trim(s, "0123456789abcdef") == ""
}
