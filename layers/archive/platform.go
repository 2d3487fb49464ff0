package archive

import (
	"fmt"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/internal/platform"
)

// Select returns the images to load for a platform, in their order. Of images that
// are the same one for several platforms, because they come from one index or have
// one name, it returns the best match; others are independent of each other and
// all are returned.
//
// A nil platform means the machine's, as a preference: an image that exists for one
// platform only is returned whatever that is, and so is an artifact, unless it lies in
// an index beside images, as attestations about them do. With another, images that do
// not match are left out, and artifacts, which are for no platform. A field of the platform that is empty matches everything. Select
// returns ErrNoImage, and says what there is, when nothing is left.
func Select(images []Image, wanted *ocispec.Platform) ([]Image, error) {
	want := platform.Host()
	if wanted != nil {
		want = *wanted
	}
	best := make(map[string]int) // group → score
	count := make(map[string]int)
	for i, img := range images {
		if img.Artifact {
			continue
		}
		key := groupKey(img, i)
		best[key] = max(best[key], platform.Score(want, img.Platform))
		count[key]++
	}
	var out []Image
	taken := make(map[string]bool)
	for i, img := range images {
		key := groupKey(img, i)
		lone := wanted == nil && count[key] == 1
		if img.Artifact {
			if wanted == nil && img.Independent() {
				out = append(out, img)
			}
			continue
		}
		if taken[key] || !lone && (best[key] == 0 || platform.Score(want, img.Platform) < best[key]) {
			continue
		}
		taken[key] = true
		out = append(out, img)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w for platform %s: there is %s", ErrNoImage, platform.Text(&want), available(images))
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

// available lists what Select could have chosen from.
func available(images []Image) string {
	var list []string
	for _, img := range images {
		s := platform.Text(img.Platform)
		if img.Artifact {
			s = "an artifact, which is for no platform"
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
