package registry

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/image/v5/docker/reference"

	"github.com/layerfs/layerfs/internal/registrytest"
	"github.com/layerfs/layerfs/layers"
)

// TestMain keeps the configuration of the machine out of the tests.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "layerfs-registry-")
	if err != nil {
		panic(err)
	}
	conf := filepath.Join(dir, "registries.conf")
	if err := os.WriteFile(conf, nil, 0o600); err != nil {
		panic(err)
	}
	os.Setenv("HOME", dir)
	os.Setenv("CONTAINERS_REGISTRIES_CONF", conf)
	os.Unsetenv("XDG_RUNTIME_DIR")
	os.Unsetenv("REGISTRY_AUTH_FILE")
	os.Unsetenv("DOCKER_CONFIG")
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

func newStore(t testing.TB) *layers.Store {
	t.Helper()
	st, err := layers.Open(filepath.Join(t.TempDir(), "store"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	return st
}

func newClient(t testing.TB, o *Options) *Client {
	t.Helper()
	if o == nil {
		o = &Options{}
	}
	if o.Backoff == 0 {
		o.Backoff = 5 * time.Millisecond
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// randomBytes are the same for the same seed and do not compress.
func randomBytes(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := 0; i < n; i += 8 {
		v := r.Uint64()
		for j := i; j < min(i+8, n); j++ {
			b[j] = byte(v)
			v >>= 8
		}
	}
	return b
}

// testImage is an image with two layers that do not compress.
func testImage(t testing.TB, seed uint64, size int) *registrytest.Image {
	t.Helper()
	return registrytest.NewImage(t, ocispec.Platform{}, nil,
		registrytest.Tar(t, "etc/base", randomBytes(seed, size)),
		registrytest.Tar(t, "etc/app", randomBytes(seed+1, size)))
}

// pull finds name and loads it for this machine.
func pull(t testing.TB, c *Client, st *layers.Store, name string) (*layers.Image, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return pullContext(ctx, c, st, name)
}

func pullContext(ctx context.Context, c *Client, st *layers.Store, name string) (*layers.Image, error) {
	names, err := c.Resolve(name)
	if err != nil {
		return nil, err
	}
	r, err := c.FindAny(ctx, names)
	if err != nil {
		return nil, err
	}
	list, err := r.Instances(ctx)
	if err != nil {
		return nil, err
	}
	in, err := Select(list, nil)
	if err != nil {
		return nil, err
	}
	return r.Pull(ctx, st, in, &layers.LoadOptions{Names: []string{r.Name}})
}

// wantClean checks that a failed pull has left nothing visible and nothing broken.
func wantClean(t testing.TB, st *layers.Store, images int) {
	t.Helper()
	list, err := st.Images(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != images {
		t.Errorf("the store has %d images, want %d", len(list), images)
	}
	left, err := os.ReadDir(filepath.Join(st.Root(), "tmp"))
	if err != nil || len(left) > 0 {
		t.Errorf("tmp holds %v (%v), want nothing", left, err)
	}
}

// partials lists what interrupted fetches have left.
func partials(t testing.TB, st *layers.Store) map[string]int64 {
	t.Helper()
	out := map[string]int64{}
	entries, err := os.ReadDir(filepath.Join(st.Root(), "blobs", "partial"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		out[e.Name()] = info.Size()
	}
	return out
}

func mustParse(t testing.TB, name string) reference.Named {
	t.Helper()
	named, err := parse(name)
	if err != nil {
		t.Fatal(err)
	}
	return named
}
