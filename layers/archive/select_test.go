package archive

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/internal/platform"
)

func TestNames(t *testing.T) {
	layer := makeTar(t)
	l := newLayout(t)
	desc := l.image(amd64, layer)
	index := l.nested(desc)
	for ref, want := range map[string]string{
		"":                      "",
		"3.20":                  "localhost/3.20:latest",
		"busybox:1":             "docker.io/library/busybox:1",
		"me/web":                "docker.io/me/web:latest",
		"quay.io/a/b:c":         "quay.io/a/b:c",
		"localhost:5000/a:v1":   "localhost:5000/a:v1",
		"RC1":                   "",
		"no reference at: all!": "",
		"../../etc/passwd:x":    "",
		// A digest is a claim, and only a true one is taken.
		"a@" + desc.Digest.String():            "docker.io/library/a@" + desc.Digest.String(),
		"a:1@" + desc.Digest.String():          "docker.io/library/a@" + desc.Digest.String(),
		"a@" + digest.FromString("x").String(): "",
	} {
		l.index.Manifests = nil
		l.list(desc, ref)
		img := mustOpenTar(t, l.members()...).Images()[0]
		if got := strings.Join(img.Names, " "); got != want || img.RefName != ref {
			t.Errorf("%q: got %q (%q), want %q", ref, got, img.RefName, want)
		}
	}
	// Names of an index are those of its images; one manifest under two names is one
	// image.
	l.index.Manifests = nil
	l.list(index, "a@"+index.Digest.String())
	l.list(index, "a:1")
	l.list(desc, "b:2")
	index.Annotations = map[string]string{annotationImageName: "docker.io/library/c:3", ocispec.AnnotationRefName: "3"}
	l.list(index, "")
	images := mustOpenTar(t, l.members()...).Images()
	want := []string{"docker.io/library/a@" + index.Digest.String(), "docker.io/library/a:1", "docker.io/library/b:2", "docker.io/library/c:3"}
	if len(images) != 1 || !slices.Equal(images[0].Names, want) {
		t.Errorf("got %+v, want one with %q", images, want)
	}
}

func TestSelect(t *testing.T) {
	layer := func(s string) []byte { return makeTar(t, member{name: s}) }
	l := newLayout(t)
	attestation := l.image(ocispec.Platform{OS: "unknown", Architecture: "unknown"}, layer("att"))
	attestation.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	absent := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("s390x"), Size: 7}
	index := l.nested(l.image(arm64, layer("a")), attestation, l.image(amd64, layer("b")), absent, l.image(armv6, layer("c")), l.image(armv7, layer("d")))
	l.list(index, "many:1")
	l.list(l.image(arm64, layer("lone")), "lone:1")
	l.list(l.image(amd64, layer("nameless")), "")
	signature := l.json(ocispec.MediaTypeImageManifest, map[string]any{
		"schemaVersion": 2, "config": l.blob(ocispec.MediaTypeImageConfig, []byte("{}")),
		"layers": []any{l.blob("application/vnd.dev.cosign.simplesigning.v1+json", []byte("{}"))},
	})
	l.list(signature, "")
	empty := ocispec.DescriptorEmptyJSON
	l.list(l.json(ocispec.MediaTypeImageManifest, map[string]any{"schemaVersion": 2, "config": empty, "artifactType": "application/x", "layers": []any{}}), "")
	l.list(ocispec.Descriptor{MediaType: "application/x-unknown", Digest: digest.FromString("?")}, "")
	images := mustOpenTar(t, l.members()...).Images()

	var got []string
	for _, img := range images {
		s := strings.Join(img.Names, " ") + " " + platform.Text(img.Platform)
		if img.Artifact {
			s = "artifact"
		}
		got = append(got, s)
	}
	many := "docker.io/library/many:1 "
	want := []string{
		many + "linux/arm64/v8", many + "linux/amd64", many + "linux/arm/v6", many + "linux/arm/v7",
		"docker.io/library/lone:1 linux/arm64/v8", " linux/amd64", "artifact", "artifact",
	}
	if !slices.Equal(got, want) {
		t.Fatalf("got %q\nwant %q", got, want)
	}

	for _, tt := range []struct {
		platform ocispec.Platform
		want     []int
	}{
		{amd64, []int{1, 5}},
		{ocispec.Platform{OS: "linux", Architecture: "amd64", Variant: "v3"}, []int{1, 5}},
		{arm64, []int{0, 4}},
		{ocispec.Platform{Architecture: "arm64"}, []int{0, 4}},
		{ocispec.Platform{OS: "linux", Architecture: "arm"}, []int{3}},
		{armv6, []int{2}},
		{armv7, []int{3}},
		{ocispec.Platform{OS: "windows"}, nil},
		{ocispec.Platform{OS: "linux", Architecture: "s390x"}, nil},
	} {
		var want []Image
		for _, i := range tt.want {
			want = append(want, images[i])
		}
		got, err := Select(images, &tt.platform)
		if (err != nil) != (want == nil) || err != nil && !errors.Is(err, ErrNoImage) {
			t.Errorf("%s: %v", platform.Text(&tt.platform), err)
		}
		if !slices.EqualFunc(got, want, func(a, b Image) bool { return a.Source == b.Source }) {
			t.Errorf("%s: got %d images, want %d", platform.Text(&tt.platform), len(got), len(want))
		}
	}
	// Without a wish, what exists for one platform only is taken, and artifacts.
	got2, err := Select(images, nil)
	if err != nil || len(got2) != 5 {
		t.Errorf("got %d images, %v; want 5", len(got2), err)
	}
	if _, err := Select(images[6:], &amd64); !errors.Is(err, ErrNoImage) || !strings.Contains(err.Error(), "artifact") {
		t.Errorf("artifacts only: %v", err)
	}
	if _, err := Select(nil, nil); !errors.Is(err, ErrNoImage) {
		t.Errorf("nothing: %v", err)
	}
}
