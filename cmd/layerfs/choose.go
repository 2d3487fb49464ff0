package main

import "github.com/layerfs/layerfs/layers/archive"

// choose returns the images of the archive to load: those of one platform unless
// all are wanted, and artifacts, but not those that lie beside images in an index.
func (o *loadOptions) choose(a *archive.Archive) ([]archive.Image, error) {
	if !o.allPlatforms {
		return archive.Select(a.Images(), o.platform)
	}
	var images []archive.Image
	for _, img := range a.Images() {
		if !img.Artifact || img.Independent() {
			images = append(images, img)
		}
	}
	return images, nil
}
