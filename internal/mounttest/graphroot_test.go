package mounttest_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/layerfs/layerfs/internal/testenv"
	"github.com/layerfs/layerfs/internal/treetest"
)

// newPodmanRoot returns a podman with a graph root of its own and no additional
// store; for an account it works without root.
func newPodmanRoot(t *testing.T, a *testenv.Account) (p *podmanCall, root string) {
	t.Helper()
	if a == nil {
		p = &podmanCall{t: t, dir: t.TempDir()}
		root = p.dir + "/root"
		p.flags = []string{"--root", root, "--runroot", p.dir + "/run", "--storage-driver", "overlay"}
		p.env = append(os.Environ(), "HOME="+p.dir)
		return p, root
	}
	p = &podmanCall{t: t, dir: a.TempDir(t), a: a}
	root = p.dir + "/.local/share/containers/storage"
	p.flags = []string{"--storage-driver", "overlay"}
	p.env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.dir, "XDG_RUNTIME_DIR=" + p.dir, "XDG_CONFIG_HOME=" + p.dir}
	t.Cleanup(p.endPause)
	return p, root
}

// over gives a store the graph root as an additional store.
func (s *store) over(root string) *store {
	s.flags = append(s.flags, "--additional-store", root)
	return s
}

// stamps describes every file of a directory, so that a write shows.
func stamps(t *testing.T, dir string) string {
	t.Helper()
	out, err := exec.Command("find", dir, "-printf", "%p %T@ %C@ %m %U %s\n").Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(out), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// TestGraphRoot reads the graph root of a real podman: the same trees as podman
// mounts, the same tars as came in, and nothing is changed there.
func TestGraphRoot(t *testing.T) {
	testenv.Require(t, "root", "fuse", "shared", "podman")
	p, root := newPodmanRoot(t, nil)
	shared := filepath.Join(testenv.Shared(t), "images")
	for _, name := range []string{"tiny-busybox.docker.tar", "mini-debian.oci.tar"} {
		p.ok("load", "-q", "-i", filepath.Join(shared, name))
	}
	build := filepath.Join(p.dir, "Containerfile")
	if err := os.WriteFile(build, []byte("FROM tiny-busybox:1\nCOPY Containerfile /built\nLABEL a=b\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p.ok("build", "-q", "--isolation", "chroot", "-t", "built", "-f", build, p.dir)
	s := newStore(t, nil).over(root)
	mnt := s.mount()
	for _, img := range p.images() {
		name := img.Names[0]
		id := p.ok("create", name, "sh")
		merged := p.ok("mount", id)
		want := s.take(merged)
		want.Problems = nil // overlayfs numbers directories in its own way
		got := s.take(filepath.Join(imageDir(mnt, name), "rootfs"))
		report(t, name, treetest.Diff(want, got, &treetest.Options{
			Opaque: true,
			// podman makes mount points in its containers.
			Skip: func(path string) bool {
				return slices.Contains([]string{".", "dev", "proc", "sys", "run", "etc"}, path)
			},
		}))
		p.ok("umount", id)
		p.ok("rm", id)
	}
	before := stamps(t, root+"/overlay") + stamps(t, root+"/overlay-layers") + stamps(t, root+"/overlay-images")
	var list []struct {
		DiffID string `json:"diffid"`
		Size   int64  `json:"size"`
	}
	s.json(&list, "layers", "--format", "json")
	if len(list) < 10 {
		t.Errorf("%d layers, want those of three images", len(list))
	}
	for _, l := range list {
		for what, cmd := range map[string]*exec.Cmd{
			"layer.tar": exec.Command("sha256sum", filepath.Join(mnt, "layers/sha256", strings.TrimPrefix(l.DiffID, "sha256:"), "layer.tar")),
			"diff":      exec.Command("sh", "-c", fmt.Sprintf("%s --root %s --runroot %s --additional-store %s diff %s | sha256sum", program, s.root, s.runroot, root, l.DiffID)),
		} {
			out, err := cmd.Output()
			if err != nil || "sha256:"+strings.Fields(string(out))[0] != l.DiffID {
				t.Errorf("%s of %s: %s, %v", what, l.DiffID, out, err)
			}
		}
	}
	if after := stamps(t, root+"/overlay") + stamps(t, root+"/overlay-layers") + stamps(t, root+"/overlay-images"); after != before {
		t.Error("the graph root was changed")
	}

	s.answersFrom(root)

	// What podman does shows up in the mount.
	p.ok("tag", "tiny-busybox:1", "later:1")
	wait(t, "a new name", func() bool {
		_, err := os.Stat(imageDir(mnt, "localhost/later:1"))
		return err == nil
	})
	p.ok("rmi", "-f", "mini-debian", "localhost/12")
	wait(t, "an image is gone", func() bool {
		_, err := os.Stat(imageDir(mnt, "localhost/12:latest"))
		return os.IsNotExist(err)
	})
	s.run("rmi", "later:1").refused(t, 1)
	// The images are bases for loads and containers of layerfs, whose store keeps nothing of them.
	if out := s.ok("load", "-i", filepath.Join(shared, "tiny-busybox.oci.tar")); strings.Count(out, "\n") != 1 {
		t.Errorf("load: %q", out)
	}
	if dirs, _ := filepath.Glob(s.root + "/layers/*"); len(dirs) != 0 {
		t.Errorf("layers were stored again: %v", dirs)
	}
	s.checkClean()
}

// answersFrom checks that the verbs that answer questions know the images of a graph
// root.
func (s *store) answersFrom(root string) {
	s.t.Helper()
	mark := "(in " + root + ")"
	found := s.ok("find", "--name", "/bin/busybox", "--type", "f")
	if !strings.Contains(found, "tiny-busybox:1") || !strings.Contains(found, mark) {
		s.t.Errorf("find: %q", found)
	}
	if out := s.ok("find", "--name", "/bin/busybox", "--type", "f", "tiny-busybox:1"); !strings.Contains(out, "/bin/busybox") {
		s.t.Errorf("find in the image: %q", out)
	}
	var files []struct{ Layer, Digest string }
	s.json(&files, "find", "--name", "/bin/busybox", "--type", "f", "--format", "json", "tiny-busybox:1")
	if len(files) == 0 {
		s.t.Fatal("find --format json: nothing")
	}
	for _, what := range []string{files[0].Layer, files[0].Digest, "tiny-busybox:1"} {
		out := s.ok("why", what)
		if !strings.Contains(out, "in the additional store "+root+"\n") || !strings.Contains(out, "tiny-busybox:1  "+mark) {
			s.t.Errorf("why %s: %q", what, out)
		}
	}
	if out := s.ok("du"); !strings.Contains(out, "in all: 0B\n") || !strings.Contains(out, "in the additional store "+root+": ") {
		s.t.Errorf("du: %q", out)
	}
	s.ok("which", "tiny-busybox:1", "/bin/busybox")
	s.ok("history", "tiny-busybox:1")
	s.ok("size", "tiny-busybox:1")
	s.ok("diff-images", "tiny-busybox:1", "localhost/12:latest")
}

// wait waits until something that a mount is told of has come.
func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 100 {
		if ok() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("%s: nobody has noticed after 5 s", what)
}

// TestGraphRootAsUser reads the graph root of a podman without root, as that user
// and outside of his user namespace.
func TestGraphRootAsUser(t *testing.T) {
	testenv.Require(t, "root", "fuse", "fusermount3", "shared", "podman", "newuidmap")
	account := testenv.User(t)
	p, root := newPodmanRoot(t, &account)
	p.ok("load", "-q", "-i", readable(t, filepath.Join(testenv.Shared(t), "images/mini-debian.oci.tar"), account))
	p.ok("load", "-q", "-i", readable(t, filepath.Join(testenv.Shared(t), "images/tiny-busybox.docker.tar"), account))
	s := newStore(t, &account).over(root)
	mnt := s.mount()
	var images []struct {
		Names []struct{ Name string } `json:"names"`
		Store string                  `json:"store"`
	}
	s.json(&images, "images", "--format", "json")
	if len(images) != 2 || images[0].Store != root {
		t.Errorf("got %+v", images)
	}
	for _, img := range images {
		rootfs := s.take(filepath.Join(imageDir(mnt, img.Names[0].Name), "rootfs"))
		if len(rootfs.Entries) < 20 {
			t.Errorf("%s has %d files", img.Names[0].Name, len(rootfs.Entries))
		}
	}
	var list []struct {
		DiffID string `json:"diffid"`
	}
	s.json(&list, "layers", "--format", "json")
	for _, l := range list {
		if got := s.userDigest(filepath.Join(mnt, "layers/sha256", strings.TrimPrefix(l.DiffID, "sha256:"), "layer.tar")); got != strings.TrimPrefix(l.DiffID, "sha256:") {
			t.Errorf("layer.tar of %s has the digest %s", l.DiffID, got)
		}
	}

	// A file of somebody in the user namespace that he alone may read: the rest of its
	// layer is shown all the same.
	p.ok("unshare", "sh", "-c", "cd "+root+"/overlay && chown 5:5 */diff/bin/busybox && chmod 0600 */diff/bin/busybox")
	other := newStore(t, &account).over(root)
	mnt = other.mount()
	rootfs := filepath.Join(imageDir(mnt, "docker.io/library/tiny-busybox:1"), "rootfs")
	out, err := testenv.RunAs(t, account, "cat", rootfs+"/bin/busybox").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "Permission denied") {
		t.Errorf("bin/busybox: %.100s, %v; want it not to be readable", out, err)
	}
	if out, err := testenv.RunAs(t, account, "cat", rootfs+"/usr/share/doc/busybox-static/copyright").CombinedOutput(); err != nil {
		t.Errorf("another file of the layer: %.100s, %v", out, err)
	}
	other.run("save", "-o", account.TempDir(t)+"/x.tar", "tiny-busybox:1").refused(t, 1)
}

// TestGraphRootDamaged changes a graph root behind podman's back.
func TestGraphRootDamaged(t *testing.T) {
	testenv.Require(t, "root", "shared", "podman")
	p, root := newPodmanRoot(t, nil)
	p.ok("load", "-q", "-i", filepath.Join(testenv.Shared(t), "images/tiny-busybox.docker.tar"))
	busybox, err := filepath.Glob(root + "/overlay/*/diff/bin/busybox")
	if err != nil || len(busybox) == 0 {
		t.Fatal(busybox, err)
	}
	if err := os.WriteFile(busybox[0], []byte("not busybox"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := newStore(t, nil).over(root)
	s.ok("images")
	s.run("save", "-o", filepath.Join(t.TempDir(), "x.tar"), "tiny-busybox:1").refused(t, 5)

	// A record that makes no sense costs only its image.
	raw, err := os.ReadFile(root + "/overlay-images/images.json")
	if err != nil {
		t.Fatal(err)
	}
	var records []map[string]any
	if err := json.Unmarshal(raw, &records); err != nil {
		t.Fatal(err)
	}
	records = append(records, map[string]any{"id": "../../x", "names": []string{"evil:1"}, "layer": "nope"})
	raw, _ = json.Marshal(records)
	if err := os.WriteFile(root+"/overlay-images/images.json", raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if out := s.ok("images", "-q"); strings.Count(out, "\n") != 1 {
		t.Errorf("images: %q", out)
	}
	if out := s.ok("info"); !strings.Contains(out, "image evil:1 of "+root+" is left out") {
		t.Errorf("info does not tell of the image that is left out:\n%s", out)
	}
	if err := os.WriteFile(root+"/overlay-images/images.json", []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := s.run("images", "-q")
	if r.code != 0 || !strings.Contains(r.stderr, "warning: additional store is not available: "+root) {
		t.Errorf("a broken list: %v", r)
	}

	// Another driver is refused by its name.
	vfs := filepath.Join(t.TempDir(), "vfs")
	exec.Command("podman", "--root", vfs, "--runroot", vfs+"-run", "--storage-driver", "vfs", "load", "-q", "-i", filepath.Join(testenv.Shared(t), "images/tiny-busybox.docker.tar")).Run()
	r = newStore(t, nil).over(vfs).run("images")
	if r.code != 0 || !strings.Contains(r.stderr, "uses vfs, only overlay can be read") {
		t.Errorf("vfs: %v", r)
	}
}
