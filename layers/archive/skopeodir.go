package archive

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Files of a directory of the dir: transport: the manifest or index, a version, blobs
// named by the hexadecimal digits of their digests and the manifests of an index with
// manifestSuffix after these.
const (
	manifestFile   = "manifest.json"
	versionFile    = "version"
	manifestSuffix = ".manifest.json"
)

// A skopeoDir shows a directory of the dir: transport with the names of a layout.
type skopeoDir struct {
	*layoutDir
	top digest.Digest // of manifestFile
}

// open implements container.
func (d *skopeoDir) open(name string) (*file, error) {
	hex, ok := strings.CutPrefix(name, "blobs/sha256/")
	switch {
	case !ok:
	case d.top.Validate() == nil && hex == d.top.Encoded():
		name = manifestFile
	case !d.has(hex) && d.has(hex+manifestSuffix):
		name = hex + manifestSuffix
	default:
		name = hex
	}
	return d.layoutDir.open(name)
}

// readSkopeoDir finds the images of such a directory; they have no names.
func (a *Archive) readSkopeoDir(d *skopeoDir) error {
	raw, err := a.document(manifestFile)
	if err != nil {
		return err
	}
	var doc struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		Manifests     []json.RawMessage `json:"manifests"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return fmt.Errorf("%s: %w: %w", a.files.member(manifestFile), ErrDamaged, err)
	}
	if doc.SchemaVersion == 1 {
		return fmt.Errorf("%s: %w: docker schema 1 manifests; convert the image with `skopeo copy --format v2s2`", a.files.member(manifestFile), ErrUnsupported)
	}
	if doc.MediaType == "" && doc.Manifests != nil {
		doc.MediaType = ocispec.MediaTypeImageIndex
	}
	if doc.MediaType == "" {
		doc.MediaType = ocispec.MediaTypeImageManifest
	}
	d.top = digest.FromBytes(raw)
	w := &walker{a: a, left: maxDescriptors, seen: make(map[digest.Digest][]int), active: make(map[digest.Digest]bool)}
	top := ocispec.Descriptor{MediaType: doc.MediaType, Digest: d.top, Size: int64(len(raw))}
	// One level down, so that manifests which were not copied may be missing.
	if _, err := w.all([]ocispec.Descriptor{top}, place{depth: 1}); err != nil {
		return err
	}
	if len(a.images) == 0 {
		if w.absent != nil {
			return w.absent
		}
		return a.errorf("%w: %s is about none", ErrNoImage, manifestFile)
	}
	return nil
}

// isSkopeoDir tells such a directory from an unpacked docker-archive, whose manifest is
// a list.
func (d *layoutDir) isSkopeoDir() bool {
	return d.has(manifestFile) && d.has(versionFile) && !slices.ContainsFunc([]string{"oci-layout", "repositories"}, d.has)
}
