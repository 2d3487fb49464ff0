package archive

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/internal/platform"
)

const (
	// maxDepth limits how deep indexes nest.
	maxDepth = 8
	// maxDescriptors limits how many descriptors the indexes of an archive hold, all in
	// all.
	maxDescriptors = 20000
)

// Media types of docker's relatives of OCI documents.
const (
	dockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	dockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig       = "application/vnd.docker.container.image.v1+json"
	dockerLayerGzip    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

// A document is what manifests and indexes have in common, so that one is not
// taken for the other.
type document struct {
	SchemaVersion int                  `json:"schemaVersion"`
	MediaType     string               `json:"mediaType"`
	Config        *ocispec.Descriptor  `json:"config"`
	Layers        []ocispec.Descriptor `json:"layers"`
	Manifests     []ocispec.Descriptor `json:"manifests"`
	Annotations   map[string]string    `json:"annotations"`
}

type documentKind uint8

const (
	kindOther documentKind = iota
	kindManifest
	kindIndex
)

func kindOf(mediaType string) documentKind {
	switch mediaType {
	case ocispec.MediaTypeImageManifest, dockerManifest:
		return kindManifest
	case ocispec.MediaTypeImageIndex, dockerManifestList:
		return kindIndex
	}
	return kindOther
}

// A walker goes through the indexes of a layout.
type walker struct {
	a      *Archive
	docker bool // there is a manifest.json, which has the names
	seen   map[digest.Digest][]int
	active map[digest.Digest]bool // the indexes above the current descriptor
	left   int                    // descriptors that may still come
	absent error                  // about a manifest that is listed and not there
}

// A place is where in the indexes a descriptor stands.
type place struct {
	depth   int
	names   []string
	ref     string
	digests []digest.Digest // of the indexes above
}

// readOCI finds the images of a layout, and takes the names of docker's
// manifest.json where there is one.
func (a *Archive) readOCI() error {
	if err := a.checkLayoutVersion(); err != nil {
		return err
	}
	raw, err := a.document("index.json")
	if err != nil {
		return err
	}
	doc, err := a.parse(raw, "index.json", kindIndex)
	if err != nil {
		return err
	}
	var items []dockerItem
	docker := false
	if a.format == FormatOCIArchive { // in a directory, other files mean nothing
		items, err = a.dockerItems()
		if docker = err == nil; err != nil && !isMissing(err) {
			return err
		}
	}
	w := &walker{
		a: a, docker: docker, left: maxDescriptors,
		seen: make(map[digest.Digest][]int), active: make(map[digest.Digest]bool),
	}
	if _, err := w.all(doc.Manifests, place{}); err != nil {
		return err
	}
	if err := a.readDocker(items); err != nil {
		return err
	}
	if len(a.images) == 0 {
		if w.absent != nil {
			return w.absent
		}
		return a.errorf("%w: index.json lists none", ErrNoImage)
	}
	return nil
}

func (a *Archive) checkLayoutVersion() error {
	raw, err := a.document(ocispec.ImageLayoutFile)
	if err != nil {
		return err
	}
	var layout ocispec.ImageLayout
	if err := json.Unmarshal(raw, &layout); err != nil {
		return fmt.Errorf("%s: %w: %w", a.files.member(ocispec.ImageLayoutFile), ErrDamaged, err)
	}
	if !strings.HasPrefix(layout.Version, "1.") {
		return fmt.Errorf("%s: %w: layout version %q, want 1.x", a.files.member(ocispec.ImageLayoutFile), ErrUnsupported, clip(layout.Version))
	}
	return nil
}

// parse reads a manifest or an index. What a descriptor says about its kind must be
// what it is, and nothing can be both (CVE-2021-41190).
func (a *Archive) parse(raw []byte, name string, want documentKind) (document, error) {
	var d document
	if err := json.Unmarshal(raw, &d); err != nil {
		return d, fmt.Errorf("%s: %w: %w", a.files.member(name), ErrDamaged, err)
	}
	if d.SchemaVersion != 2 {
		return d, fmt.Errorf("%s: %w: schema version %d, want 2", a.files.member(name), ErrUnsupported, d.SchemaVersion)
	}
	is := kindManifest
	if d.Manifests != nil || d.Config == nil && d.Layers == nil {
		is = kindIndex
	}
	if d.Manifests != nil && (d.Config != nil || d.Layers != nil) ||
		want != is || d.MediaType != "" && kindOf(d.MediaType) != is {
		return d, fmt.Errorf("%s: %w: it is not what its media type says, or a manifest and an index at once", a.files.member(name), ErrDamaged)
	}
	return d, nil
}

// all visits descriptors and returns which images they lead to.
func (w *walker) all(descs []ocispec.Descriptor, at place) ([]int, error) {
	var found []int
	for _, desc := range descs {
		// A shared index is read once, but each visit names all of its images.
		if w.left -= 1 + len(w.seen[desc.Digest]); w.left < 0 {
			return nil, w.a.errorf("%w: its indexes hold more than %d descriptors", ErrTooLarge, maxDescriptors)
		}
		images, err := w.visit(desc, at)
		if isMissing(err) && at.depth > 0 {
			// docker saves the whole index of an image, but only the platforms it has.
			if w.absent == nil {
				w.absent = err
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		found = append(found, images...)
	}
	return found, nil
}

// visit looks at one descriptor.
func (w *walker) visit(desc ocispec.Descriptor, at place) ([]int, error) {
	if platform.IsAttestation(desc) {
		return nil, nil
	}
	if name := annotated(desc.Annotations, w.docker); name != "" {
		at.names = append(slices.Clone(at.names), name)
	}
	if ref := desc.Annotations[ocispec.AnnotationRefName]; ref != "" {
		at.ref = ref
	}
	at.digests = append(slices.Clone(at.digests), desc.Digest)
	images, ok := w.seen[desc.Digest]
	if !ok {
		var err error
		if images, err = w.read(desc, at); err != nil {
			return nil, err
		}
		w.seen[desc.Digest] = images
	}
	for _, i := range images {
		img := &w.a.images[i]
		for _, name := range at.names {
			img.addName(name, at.digests)
		}
		if img.RefName == "" {
			img.RefName = at.ref
		}
	}
	return images, nil
}

// read reads the manifest or index of a descriptor for the first time.
func (w *walker) read(desc ocispec.Descriptor, at place) ([]int, error) {
	kind := kindOf(desc.MediaType)
	if kind == kindOther && desc.MediaType != "" {
		return nil, nil // the specification says to ignore what is not known
	}
	raw, err := w.a.verified(desc)
	if err != nil {
		return nil, err
	}
	name, _ := blobName(desc.Digest) // verified has checked it
	if kind == kindOther {
		kind = kindManifest
		var probe struct{ Manifests []json.RawMessage }
		if json.Unmarshal(raw, &probe) == nil && probe.Manifests != nil {
			kind = kindIndex
		}
	}
	doc, err := w.a.parse(raw, name, kind)
	if err != nil {
		return nil, err
	}
	if kind == kindManifest {
		return w.image(desc, doc, at)
	}
	if w.active[desc.Digest] || at.depth+1 > maxDepth {
		return nil, fmt.Errorf("%s: %w: indexes nest deeper than %d", w.a.files.member(name), ErrTooLarge, maxDepth)
	}
	w.active[desc.Digest] = true
	defer delete(w.active, desc.Digest)
	// The names are given by visit, to all images that come back.
	return w.all(doc.Manifests, place{depth: at.depth + 1, digests: at.digests})
}

// image adds the image of a manifest.
func (w *walker) image(desc ocispec.Descriptor, doc document, at place) ([]int, error) {
	img := Image{Platform: desc.Platform, Source: &Source{a: w.a, desc: desc}}
	if len(at.digests) > 1 {
		img.group = at.digests[0].String() // the outermost index
	}
	if doc.Config == nil {
		return nil, fmt.Errorf("%s: %w: the manifest names no config", w.a.files.member(string(desc.Digest)), ErrDamaged)
	}
	img.ID = doc.Config.Digest
	img.Artifact = !isImage(doc)
	if desc.MediaType == "" {
		img.Source.desc.MediaType = doc.MediaType
	}
	if !img.Artifact {
		p, err := w.a.configPlatform(*doc.Config)
		if err != nil {
			return nil, err
		}
		if img.Platform == nil {
			img.Platform = p
		}
	}
	w.a.images = append(w.a.images, img)
	return []int{len(w.a.images) - 1}, nil
}

// configPlatform reads the platform from an image's config.
func (a *Archive) configPlatform(desc ocispec.Descriptor) (*ocispec.Platform, error) {
	raw, err := a.verified(desc)
	if err != nil {
		return nil, err
	}
	var p ocispec.Platform
	if err := json.Unmarshal(raw, &p); err != nil {
		return nil, a.errorf("config %s: %w: %w", desc.Digest, ErrDamaged, err)
	}
	if p.OS == "" && p.Architecture == "" {
		return nil, nil
	}
	return &p, nil
}

// isImage tells images from artifacts: the config is one of an image, and the
// layers, if any, are tars.
func isImage(doc document) bool {
	if t := doc.Config.MediaType; t != "" && t != ocispec.MediaTypeImageConfig && t != dockerConfig {
		return false
	}
	return len(doc.Layers) == 0 || slices.ContainsFunc(doc.Layers, func(d ocispec.Descriptor) bool {
		return d.MediaType == "" || strings.Contains(d.MediaType, ".tar")
	})
}
