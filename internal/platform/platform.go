// Package platform compares the platforms that images are made for.
package platform

import (
	"runtime"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Host is the platform of this machine.
func Host() ocispec.Platform {
	return ocispec.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH}
}

// Score says how well a platform fits, 0 being not at all. An unknown one, which is
// nil, fits a little; a field of want that is empty matches everything.
func Score(want ocispec.Platform, have *ocispec.Platform) int {
	if have == nil {
		return 1
	}
	if want.OS != "" && want.OS != have.OS || want.Architecture != "" && want.Architecture != have.Architecture {
		return 0
	}
	return variantScore(have.Architecture, want.Variant, have.Variant)
}

// variantScore compares variants of one architecture. Newer arm and amd64 machines
// run what was built for older ones, and the nearest is the best.
func variantScore(arch, want, have string) int {
	defaults := map[string]string{"amd64": "v1", "arm64": "v8", "arm": "v7"}
	if want == "" {
		want = defaults[arch]
	}
	if have == "" {
		have = defaults[arch]
	}
	switch {
	case want == have:
		return 20
	case want == "":
		return 2
	}
	w, h := version(want), version(have)
	if w > 0 && h > 0 && h < w && arch != "arm64" {
		return 20 - (w - h)
	}
	return 0
}

// version returns the number of a variant such as v7, or 0.
func version(variant string) int {
	if len(variant) == 2 && variant[0] == 'v' && variant[1] >= '1' && variant[1] <= '9' {
		return int(variant[1] - '0')
	}
	return 0
}

// Text is OS/ARCH[/VARIANT], or unknown for nil.
func Text(p *ocispec.Platform) string {
	if p == nil {
		return "unknown"
	}
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// IsAttestation recognizes what buildkit puts beside the images of an index.
func IsAttestation(desc ocispec.Descriptor) bool {
	if desc.Annotations["vnd.docker.reference.type"] == "attestation-manifest" {
		return true
	}
	p := desc.Platform
	return p != nil && p.OS == "unknown" && p.Architecture == "unknown"
}
