package layers

import "slices"

// RepoTags returns the image's names that have a tag, in byte order.
func (img *Image) RepoTags() []string {
	out := []string{}
	for _, n := range img.Names {
		if _, tag, _ := SplitName(n.Name); tag != "" {
			out = append(out, n.Name)
		}
	}
	slices.Sort(out)
	return out
}

// RepoDigests returns, for each of the image's repositories, repository@digest with the
// digest of the manifest that a name there stands for and those of the indexes that led
// to it, in byte order and each once.
func (img *Image) RepoDigests() []string {
	out := []string{}
	for _, n := range img.Names {
		repository, _, own := SplitName(n.Name)
		if own != "" {
			out = append(out, n.Name)
		}
		out = append(out, repository+"@"+string(n.Manifest.Digest))
		for _, m := range img.Manifests {
			if m.Descriptor.Digest != n.Manifest.Digest {
				continue
			}
			for _, d := range m.Indexes {
				out = append(out, repository+"@"+string(d.Digest))
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
