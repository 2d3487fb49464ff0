package layers

import (
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// FuzzDocuments reads manifests and configs of any content. What is accepted names its layers one by one, by digests
// that are no paths.
func FuzzDocuments(f *testing.F) {
	sum := digest.FromString("x").String()
	f.Add([]byte(`{"schemaVersion":2,"config":{"digest":"`+sum+`","size":1},"layers":[{"digest":"`+sum+`","size":2}]}`),
		[]byte(`{"os":"linux","rootfs":{"type":"layers","diff_ids":["`+sum+`"]}}`), "")
	f.Add([]byte(`{"schemaVersion":2,"config":{"digest":"sha256:../../x"},"layers":null}`), []byte(`{"rootfs":{}}`), ocispec.MediaTypeImageManifest)
	f.Add([]byte(`{"schemaVersion":1}`), []byte(`[]`), MediaTypeDockerSchema1)
	f.Add([]byte(`{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{"digest":"`+sum+`","size":-1}}`), []byte(`{"created":"x"}`), "")
	f.Fuzz(func(t *testing.T, manifest, cfg []byte, mediaType string) {
		m, err := parseManifest(manifest, ocispec.Descriptor{MediaType: mediaType})
		if err != nil {
			return
		}
		for _, d := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
			if d.Digest.Validate() != nil || d.Digest.Algorithm() != digest.SHA256 || d.Size < 0 {
				t.Errorf("descriptor %q of %d bytes was accepted", d.Digest, d.Size)
			}
		}
		_ = isArtifact(m)
		_, ids, err := parseConfig(cfg, m)
		if err != nil {
			return
		}
		if len(ids) != len(m.Layers) || len(ids) > maxLayers {
			t.Errorf("%d DiffIDs of %d layers", len(ids), len(m.Layers))
		}
		for _, id := range ids {
			if digest.Digest(id).Validate() != nil {
				t.Errorf("DiffID %q was accepted", id)
			}
		}
	})
}

// FuzzName completes names. A completed one is complete, is split into parts that make it again, and is a path in
// which no part leads anywhere else, with an @ in the last part only.
func FuzzName(f *testing.F) {
	for _, name := range []string{"debian", "localhost:5000/a/b:v1", "a@sha256:" + strings.Repeat("ab", 32), "../../x", "a/../b", "A", "x:", "a//b", "example.com/..:1", "a:1@sha256:" + strings.Repeat("0", 64)} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		full, err := NormalizeName(name)
		if err != nil {
			return
		}
		if again, err := NormalizeName(full); err != nil || again != full {
			t.Errorf("%q is completed to %q, and that to %q, %v", name, full, again, err)
		}
		repo, tag, dgst := SplitName(full)
		if joined := repo + map[bool]string{true: ":" + tag, false: "@" + dgst.String()}[dgst == ""]; joined != full {
			t.Errorf("%q is split into %q, %q, %q", full, repo, tag, dgst)
		}
		parts := strings.Split(PathOfName(full), "/")
		for i, p := range parts {
			if p == "" || p == "." || p == ".." || strings.ContainsAny(p, ":\x00") {
				t.Errorf("%q is shown in the directory %q", full, p)
			}
			if last := i == len(parts)-1; last != strings.Contains(p, "@") && i > 0 {
				t.Errorf("%q: part %q of the path", full, p)
			}
		}
	})
}
