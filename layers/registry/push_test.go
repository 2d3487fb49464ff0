package registry

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/image/v5/docker/reference"

	"github.com/layerfs/layerfs/internal/registrytest"
	"github.com/layerfs/layerfs/layers"
)

// push sends the image of the store that has a name.
func push(t testing.TB, c *Client, st *layers.Store, name, to string) (digest.Digest, error) {
	t.Helper()
	img, err := st.Image(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	var blobs []digest.Digest
	for _, l := range img.Manifest(name).Layers {
		blobs = append(blobs, l.Digest)
	}
	repositories, err := st.Repositories(t.Context(), blobs)
	if err != nil {
		t.Fatal(err)
	}
	named, err := reference.ParseNormalizedNamed(to)
	if err != nil {
		t.Fatal(err)
	}
	return c.Push(t.Context(), st.Outgoing(img, name), named, &PushOptions{Repositories: repositories})
}

// The manifest that went in comes out, what the registry has is not sent, and what
// another repository has is shared.
func TestPush(t *testing.T) {
	reg := registrytest.Start(t, nil)
	proxy := registrytest.NewProxy(t, reg.Addr)
	img := testImage(t, 1, 1<<20)
	img.Put(t, reg.Addr, "from", "v1")
	st, c := newStore(t), newClient(t, nil)
	name := proxy.Addr + "/from:v1"
	if _, err := pull(t, c, st, name); err != nil {
		t.Fatal(err)
	}

	other := registrytest.Start(t, nil)
	second := registrytest.NewProxy(t, other.Addr)
	steps := []struct {
		what, to string
		proxy    *registrytest.Proxy
		want     []string // the methods, in any order, without doubles
	}{
		{"all", second.Addr + "/to:v1", second, []string{"HEAD", "POST", "PATCH", "PUT"}},
		{"nothing", second.Addr + "/to:v1", second, []string{"HEAD"}},
		{"tag", second.Addr + "/to:v2", second, []string{"HEAD", "PUT"}},
		{"shared", proxy.Addr + "/beside:v1", proxy, []string{"HEAD", "POST", "PUT", "PATCH"}},
	}
	for _, step := range steps {
		step.proxy.Requests()
		d, err := push(t, c, st, name, step.to)
		if err != nil || d != img.Desc.Digest {
			t.Fatalf("%s: got %s, %v, want %s", step.what, d, err, img.Desc.Digest)
		}
		seen := step.proxy.Requests()
		for _, line := range seen {
			method, _, _ := strings.Cut(line, " ")
			if !contains(step.want, method) {
				t.Errorf("%s: request %s; want only %v", step.what, line, step.want)
			}
		}
		// The config is sent, because only layers are known to be shared.
		if n := countPrefix(seen, "PATCH"); step.what == "shared" && n != 1 {
			t.Errorf("%s: %d blobs were sent, want the config only: %q", step.what, n, seen)
		}
		if _, err := pull(t, c, newStore(t), step.to); err != nil {
			t.Errorf("%s: %v", step.what, err)
		}
	}
}

func countPrefix(list []string, prefix string) int {
	n := 0
	for _, s := range list {
		if strings.HasPrefix(s, prefix) {
			n++
		}
	}
	return n
}

// A push goes on through what a busy server says, and stops at what it says for good.
func TestPushFaults(t *testing.T) {
	reg := registrytest.Start(t, nil)
	img := testImage(t, 5, 1<<20)
	img.Put(t, reg.Addr, "from", "v1")
	st, c := newStore(t), newClient(t, nil)
	name := reg.Addr + "/from:v1"
	if _, err := pull(t, c, st, name); err != nil {
		t.Fatal(err)
	}
	for _, method := range []string{"HEAD", "POST", "PATCH", "PUT"} {
		proxy := registrytest.NewProxy(t, registrytest.Start(t, nil).Addr)
		done := map[string]bool{}
		proxy.Fault(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != method || done[method] {
				return false
			}
			done[method] = true
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		})
		if d, err := push(t, newClient(t, &Options{Parallel: 1}), st, name, proxy.Addr+"/to:v1"); err != nil || d != img.Desc.Digest {
			t.Errorf("%s: got %s, %v", method, d, err)
		}
		if !done[method] {
			t.Errorf("there was no %s", method)
		}
	}
	proxy := registrytest.NewProxy(t, reg.Addr)
	proxy.Fault(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut {
			http.Error(w, `{"errors":[{"code":"DENIED","message":"quota exceeded"}]}`, http.StatusForbidden)
			return true
		}
		return false
	})
	if _, err := push(t, c, st, name, proxy.Addr+"/to:v1"); !errors.Is(err, ErrUnauthorized) || !strings.Contains(err.Error(), "quota exceeded") {
		t.Errorf("got %v, want what the registry says", err)
	}
	// A digest that is not the image's cannot be pushed to.
	if _, err := push(t, c, st, name, reg.Addr+"/to@"+string(digest.FromString("x"))); !errors.Is(err, layers.ErrInvalidName) {
		t.Errorf("got %v, want %v", err, layers.ErrInvalidName)
	}
}

// An index goes out with its digest when all that it names is there: images, what is
// nested, and what buildkit puts beside them.
func TestPushIndex(t *testing.T) {
	reg := registrytest.Start(t, nil)
	var descs []ocispec.Descriptor
	for i, arch := range []string{"arm64", "amd64"} {
		img := registrytest.NewImage(t, ocispec.Platform{OS: "linux", Architecture: arch}, nil, registrytest.Tar(t, arch, randomBytes(uint64(i), 100)))
		img.Put(t, reg.Addr, "multi", img.Desc.Digest.String())
		descs = append(descs, img.Desc)
	}
	note := newArtifact(t)
	note.Put(t, reg.Addr, "multi", note.Desc.Digest.String())
	note.Desc.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	inner, innerDesc := registrytest.NewIndex(t, descs...)
	registrytest.PutManifest(t, reg.Addr, "multi", innerDesc.Digest.String(), innerDesc.MediaType, inner)
	outer, outerDesc := registrytest.NewIndex(t, innerDesc, note.Desc)
	registrytest.PutManifest(t, reg.Addr, "multi", "v1", outerDesc.MediaType, outer)

	st, c := newStore(t), newClient(t, nil)
	to := mustParse(t, registrytest.Start(t, nil).Addr+"/copy:v1")
	if _, err := pull(t, c, st, reg.Addr+"/multi:v1"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PushIndex(t.Context(), st, outerDesc, to, nil); !errors.Is(err, layers.ErrImageUnknown) || !strings.Contains(err.Error(), "linux/arm64") {
		t.Errorf("an incomplete index: got %v", err)
	}
	r, err := c.Find(t.Context(), mustParse(t, reg.Addr+"/multi:v1"))
	if err != nil {
		t.Fatal(err)
	}
	list, err := r.Instances(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range list {
		if _, err := r.Pull(t.Context(), st, in, nil); err != nil {
			t.Fatal(err)
		}
	}
	if d, err := c.PushIndex(t.Context(), st, outerDesc, to, nil); err != nil || d != outerDesc.Digest {
		t.Fatalf("got %s, %v", d, err)
	}
	there, err := c.Find(t.Context(), to)
	if err != nil || there.Descriptor.Digest != outerDesc.Digest {
		t.Errorf("there is %v, %v", there, err)
	}
	if _, err := pull(t, c, newStore(t), to.String()); err != nil {
		t.Error(err)
	}
}
