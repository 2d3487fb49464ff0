package registry

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/internal/registrytest"
	"github.com/layerfs/layerfs/internal/testenv"
	"github.com/layerfs/layerfs/layers"
)

// A pull that fills the disk leaves nothing visible, and a store that is whole; with more
// space it goes on where it stopped.
func TestPullFillsDisk(t *testing.T) {
	testenv.Require(t, "root")
	reg := registrytest.Start(t, nil)
	proxy := registrytest.NewProxy(t, reg.Addr)
	img := testImage(t, 40, 6<<20) // two layers
	img.Put(t, reg.Addr, "app", "v1")
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=9m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(disk, unix.MNT_DETACH) }) // nothing in it is needed
	st, err := layers.Open(filepath.Join(disk, "store"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	name := proxy.Addr + "/app:v1"
	_, err = pull(t, newClient(t, nil), st, name)
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("got %v, want that there is no space", err)
	}
	wantClean(t, st, 0)
	if report, err := st.Check(t.Context(), nil); err != nil || len(report.Problems) != 0 {
		t.Errorf("check: %+v, %v", report, err)
	}
	have := partials(t, st)
	if len(have) == 0 {
		t.Error("nothing is left of what was fetched")
	}
	if err := unix.Mount("tmpfs", disk, "tmpfs", unix.MS_REMOUNT, "size=100m"); err != nil {
		t.Fatal(err)
	}
	proxy.Requests()
	got, err := pull(t, newClient(t, nil), st, name)
	if err != nil || got.ID != digest.FromBytes(img.Config) {
		t.Fatalf("with more space: %v, %v", got, err)
	}
	seen := proxy.Requests()
	resumed := false
	for d, n := range have {
		full := int64(0)
		for _, l := range img.Layers {
			if l.Desc.Digest.Encoded() == d {
				full = l.Desc.Size
			}
		}
		resumed = resumed || contains(seen, "GET /v2/app/blobs/sha256:"+d+" bytes=") || n == full && !contains(seen, "GET /v2/app/blobs/sha256:"+d)
	}
	if !resumed {
		t.Errorf("all was fetched again, although there was %v", have)
	}
	wantClean(t, st, 1)
	if len(partials(t, st)) > 0 {
		t.Errorf("partial files are left: %v", partials(t, st))
	}
}
