package archive

import (
	"fmt"
	"runtime"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Select returns the images to load for a platform, in their order. Of images that
// are the same one for several platforms, because they come from one index or have
// one name, it returns the best match; others are independent of each other and
// all are returned. Artifacts never are.
//
// A nil platform means the machine's, as a preference: an image that exists for one
// platform only is returned whatever that is. With another, images that do not match
// are left out. A field of the platform that is empty matches everything. Select
// returns ErrNoImage, and says what there is, when nothing is left.
func Select(images []Image, platform *ocispec.Platform) ([]Image, error) {
	want := ocispec.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH}
	if platform != nil {
		want = *platform
	}
	best := make(map[string]int) // group → score
	count := make(map[string]int)
	for i, img := range images {
		if img.Artifact {
			continue
		}
		key := groupKey(img, i)
		best[key] = max(best[key], score(want, img.Platform))
		count[key]++
	}
	var out []Image
	taken := make(map[string]bool)
	for i, img := range images {
		key := groupKey(img, i)
		lone := platform == nil && count[key] == 1
		if img.Artifact || taken[key] || !lone && (best[key] == 0 || score(want, img.Platform) < best[key]) {
			continue
		}
		taken[key] = true
		out = append(out, img)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w for platform %s: there is %s", ErrNoImage, platformString(&want), available(images))
	}
	return out, nil
}

// groupKey returns the same for images that are alternatives.
func groupKey(img Image, i int) string {
	switch {
	case img.group != "":
		return img.group
	case len(img.Names) > 0:
		return "names " + strings.Join(slices.Sorted(slices.Values(img.Names)), " ")
	}
	return fmt.Sprint("image ", i)
}

// score says how well a platform fits, 0 being not at all.
func score(want ocispec.Platform, have *ocispec.Platform) int {
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

func platformString(p *ocispec.Platform) string {
	if p == nil {
		return "unknown"
	}
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// available lists what Select could have chosen from.
func available(images []Image) string {
	var list []string
	for _, img := range images {
		s := platformString(img.Platform)
		if img.Artifact {
			s = "an artifact, which is no image"
		}
		if !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	if len(list) == 0 {
		return "nothing"
	}
	if len(list) > 10 {
		list = append(list[:10], "…")
	}
	return strings.Join(list, ", ")
}
