package archive

import (
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/image/v5/docker/reference"
)

// annotationImageName is what containerd and docker call an image in an index.
const annotationImageName = "io.containerd.image.name"

// normalize completes a reference as docker does; of a tag and a digest the digest
// stays.
func normalize(name string) (reference.Named, error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return nil, err
	}
	if d, ok := named.(reference.Digested); ok {
		return reference.WithDigest(reference.TrimNamed(named), d.Digest())
	}
	return reference.TagNameOnly(named), nil
}

// annotated returns the name that the annotations of a descriptor give, or "".
//
// containerd's annotation wins, as in podman. A reference name with "/" or ":" is a
// full reference and normalized as docker does. Anything shorter usually is only a
// tag; podman takes it for a repository below localhost, and so do we: "3.20" becomes
// localhost/3.20:latest. In an archive that has docker's names it is ignored.
func annotated(annotations map[string]string, docker bool) string {
	if named, err := normalize(annotations[annotationImageName]); err == nil {
		return named.String()
	}
	ref := annotations[ocispec.AnnotationRefName]
	if !strings.ContainsAny(ref, "/:") {
		if docker || ref == "" {
			return ""
		}
		ref = "localhost/" + ref
	}
	named, err := normalize(ref)
	if err != nil {
		return "" // the annotation may hold any text
	}
	return named.String()
}

// addName adds a name unless the image has it, or it names a digest that is not
// among those of the image: such a name would claim to be something else.
func (i *Image) addName(name string, digests []digest.Digest) {
	if name == "" || slices.Contains(i.Names, name) {
		return
	}
	if _, d, ok := strings.Cut(name, "@"); ok && !slices.Contains(digests, digest.Digest(d)) {
		return
	}
	i.Names = append(i.Names, name)
}
