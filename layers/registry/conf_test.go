package registry

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/internal/registrytest"
	"github.com/layerfs/layerfs/layers"
)

// conf returns a client with a registries.conf of its own.
func conf(t testing.TB, text string) *Client {
	t.Helper()
	return newClient(t, &Options{RegistriesConf: write(t, "registries.conf", text)})
}

// Short names go to aliases first, then to each of the configured registries.
func TestResolve(t *testing.T) {
	id := strings.Repeat("a", 64)
	two := `unqualified-search-registries = ["quay.io", "docker.io", "quay.io"]
[aliases]
"tool" = "registry.example.com/team/tool"
`
	tests := []struct {
		conf, name string
		want       string
		err        error
	}{
		{two, "wibble", "quay.io/wibble:latest docker.io/library/wibble:latest", nil},
		{two, "me/app:1", "quay.io/me/app:1 docker.io/me/app:1", nil},
		{two, "tool:2", "registry.example.com/team/tool:2", nil},
		{two, "tool", "registry.example.com/team/tool:latest", nil},
		{two, "docker.io/alpine", "docker.io/library/alpine:latest", nil},
		{two, "localhost/x", "localhost/x:latest", nil},
		{two, "a.b:5000/x/y:z", "a.b:5000/x/y:z", nil},
		{two, "wibble@sha256:" + id, "quay.io/wibble@sha256:" + id + " docker.io/library/wibble@sha256:" + id, nil},
		{two, "quay.io/x:1@sha256:" + id, "quay.io/x@sha256:" + id, nil},
		{two, id, "", layers.ErrInvalidName},
		{two, "Not A Name", "", layers.ErrInvalidName},
		{"", "wibble", "", ErrShortName},
		{"short-name-mode = \"enforcing\"\n" + two, "wibble", "", ErrShortName},
		{"short-name-mode = \"enforcing\"\nunqualified-search-registries = [\"quay.io\"]", "wibble", "quay.io/wibble:latest", nil},
	}
	for _, tt := range tests {
		list, err := conf(t, tt.conf).Resolve(tt.name)
		var got []string
		for _, named := range list {
			got = append(got, named.String())
		}
		if strings.Join(got, " ") != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%s: got %q, %v, want %q, %v", tt.name, got, err, tt.want, tt.err)
		}
	}
	if _, err := conf(t, "this is no [toml").Resolve("wibble"); err == nil {
		t.Error("a broken file is accepted")
	}
}

// Mirrors are asked first and passed over when they are dead; a blocked registry stays
// blocked also when its location is elsewhere.
func TestRegistriesConf(t *testing.T) {
	reg := registrytest.Start(t, nil)
	proxy := registrytest.NewProxy(t, reg.Addr)
	testImage(t, 1, 1000).Put(t, reg.Addr, "mirrored/app", "v1")
	mirrors := fmt.Sprintf(`
[[registry]]
prefix = "example.invalid"
location = "127.0.0.1:1"
[[registry.mirror]]
location = "127.0.0.1:1/dead"
[[registry.mirror]]
location = "%s/mirrored"

[[registry]]
prefix = "*.blocked.invalid"
location = "%s/mirrored"
blocked = true

[[registry]]
location = "blocked.too"
blocked = true
`, proxy.Addr, proxy.Addr)
	st := newStore(t)
	img, err := pull(t, conf(t, mirrors), st, "example.invalid/app:v1")
	if err != nil {
		t.Fatal(err)
	}
	if img.Names[0].Name != "example.invalid/app:v1" {
		t.Errorf("the name is %s, want the one that was asked for", img.Names[0].Name)
	}
	proxy.Requests()
	for _, name := range []string{"x.blocked.invalid/app:v1", "blocked.too/app:v1"} {
		if _, err := pull(t, conf(t, mirrors), newStore(t), name); !errors.Is(err, ErrBlocked) {
			t.Errorf("%s: got %v, want %v", name, err, ErrBlocked)
		}
		if _, err := push(t, conf(t, mirrors), st, "example.invalid/app:v1", name); !errors.Is(err, ErrBlocked) {
			t.Errorf("push to %s: got %v, want %v", name, err, ErrBlocked)
		}
	}
	if seen := proxy.Requests(); len(seen) > 0 {
		t.Errorf("a blocked registry is asked: %q", seen)
	}
	_, err = pull(t, conf(t, mirrors), newStore(t), "example.invalid/other:v1")
	if !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v, want what the registry itself says", err)
	}
	insecure := fmt.Sprintf("[[registry]]\nlocation = %q\ninsecure = true\n", reg.Addr)
	c := conf(t, insecure)
	c.insecure.nets = nil
	if _, err := pull(t, c, newStore(t), reg.Addr+"/mirrored/app:v1"); err != nil {
		t.Errorf("insecure: %v", err)
	}
}

// Of an index the image of the platform is pulled, through nested indexes, and the
// image is found by the digest of the index too.
func TestPlatforms(t *testing.T) {
	reg := registrytest.Start(t, nil)
	images := map[string]*registrytest.Image{}
	var descs []ocispec.Descriptor
	for i, arch := range []string{"arm64", "amd64", "s390x"} {
		img := registrytest.NewImage(t, ocispec.Platform{OS: "linux", Architecture: arch}, nil, registrytest.Tar(t, arch, randomBytes(uint64(i), 100)))
		img.Put(t, reg.Addr, "multi", img.Desc.Digest.String())
		images[arch] = img
		descs = append(descs, img.Desc)
	}
	inner, innerDesc := registrytest.NewIndex(t, descs[:2]...)
	registrytest.PutManifest(t, reg.Addr, "multi", innerDesc.Digest.String(), innerDesc.MediaType, inner)
	unknown := images["amd64"].Desc
	unknown.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	outer, outerDesc := registrytest.NewIndex(t, unknown, descs[2], innerDesc)
	registrytest.PutManifest(t, reg.Addr, "multi", "v1", outerDesc.MediaType, outer)

	st, c := newStore(t), newClient(t, nil)
	got, err := pull(t, c, st, reg.Addr+"/multi:v1")
	if err != nil {
		t.Fatal(err)
	}
	if got.Platform.Architecture != "amd64" {
		t.Errorf("got the image for %s", got.Platform.Architecture)
	}
	for _, d := range []ocispec.Descriptor{images["amd64"].Desc, innerDesc, outerDesc} {
		img, err := st.Image(t.Context(), reg.Addr+"/multi@"+string(d.Digest))
		if err != nil || img.ID != got.ID {
			t.Errorf("by %s: %v", d.Digest, err)
		}
		if _, err := st.Blob(d.Digest); err != nil {
			t.Error(err)
		}
	}
	if _, err := st.GC(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Blob(outerDesc.Digest); err != nil {
		t.Errorf("after a collection: %v", err)
	}
	byDigest := reg.Addr + "/multi@" + string(outerDesc.Digest)
	if img, err := pull(t, c, st, byDigest); err != nil || len(img.Names) != 2 {
		t.Errorf("by the digest of the index: %v, %v", img, err)
	}

	r, err := c.Find(t.Context(), mustParse(t, reg.Addr+"/multi:v1"))
	if err != nil {
		t.Fatal(err)
	}
	list, err := r.Instances(t.Context())
	if err != nil || len(list) != 4 {
		t.Fatalf("got %d instances, %v, want 4 with the attestation", len(list), err)
	}
	if in, err := Select(list, &ocispec.Platform{OS: "linux", Architecture: "s390x"}); err != nil || in.Descriptor.Digest != descs[2].Digest {
		t.Errorf("got %v, %v", in.Descriptor, err)
	}
	if _, err := Select(list, &ocispec.Platform{OS: "linux", Architecture: "riscv64"}); !errors.Is(err, ErrNoPlatform) || !strings.Contains(err.Error(), "linux/s390x, linux/arm64") {
		t.Errorf("got %v, want what there is", err)
	}
}
