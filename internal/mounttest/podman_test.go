package mounttest_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/layerfs/layerfs/internal/testenv"
	"github.com/layerfs/layerfs/internal/treetest"
)

// podmanCall makes calls of podman on a graph root of its own, with the mount as
// an additional image store.
type podmanCall struct {
	t   *testing.T
	dir string
	env []string
	a   *testenv.Account
	// flags come before the verb.
	flags []string
}

// newPodman returns one as root, or as the account with the variable that layerfs
// env prints.
func newPodman(t *testing.T, s *store, mnt string, a *testenv.Account) *podmanCall {
	t.Helper()
	p := &podmanCall{t: t, dir: t.TempDir(), a: a}
	if a == nil {
		p.flags = []string{
			"--root", p.dir + "/root", "--runroot", p.dir + "/run", "--storage-driver", "overlay",
			"--storage-opt", "additionalimagestore=" + mnt + "/podman",
		}
		p.env = append(os.Environ(), "HOME="+p.dir)
		return p
	}
	p.dir = a.TempDir(t)
	p.env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.dir, "XDG_RUNTIME_DIR=" + p.dir, "XDG_CONFIG_HOME=" + p.dir}
	cmd := s.command(t.Context(), "env", "podman", mnt)
	cmd.Env = p.env
	line, err := cmd.Output()
	if err != nil {
		t.Fatalf("layerfs env: %v", err)
	}
	p.env = append(p.env, strings.TrimPrefix(strings.TrimSpace(string(line)), "export "))
	t.Cleanup(p.endPause)
	return p
}

// endPause ends the process that podman leaves behind for an ordinary user, which
// would keep the mount.
func (p *podmanCall) endPause() {
	raw, err := os.ReadFile(filepath.Join(p.dir, "libpod/tmp/pause.pid"))
	if err != nil {
		return
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(string(raw))); err == nil && pid > 1 {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	exec.Command("chown", "-R", fmt.Sprint(os.Geteuid()), p.dir).Run()
}

func (p *podmanCall) command(args ...string) *exec.Cmd {
	cmd := exec.Command("podman", append(slices.Clone(p.flags), args...)...)
	cmd.Env, cmd.Dir = p.env, p.dir
	if p.a != nil {
		p.a.Apply(cmd)
		cmd.Env = p.env
	}
	return cmd
}

// ok calls podman and returns what it prints.
func (p *podmanCall) ok(args ...string) string {
	p.t.Helper()
	cmd := p.command(args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		p.t.Fatalf("podman %q: %v\n%s", args, err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// pushed pushes an image to a directory and returns the digests of its layers.
func (p *podmanCall) pushed(name string) []string {
	p.t.Helper()
	dir := filepath.Join(p.dir, "pushed")
	p.ok("push", "-q", name, "dir:"+dir)
	raw, err := os.ReadFile(dir + "/manifest.json")
	if err != nil {
		p.t.Fatal(err)
	}
	var m struct{ Layers []struct{ Digest string } }
	if err := json.Unmarshal(raw, &m); err != nil {
		p.t.Fatal(err)
	}
	var out []string
	for _, l := range m.Layers {
		out = append(out, l.Digest)
	}
	return out
}

// podmanImage is what podman says about an image.
type podmanImage struct {
	Names    []string
	ReadOnly bool
}

func (p *podmanCall) images() []podmanImage {
	p.t.Helper()
	var list []podmanImage
	if err := json.Unmarshal([]byte(p.ok("images", "--format", "json")), &list); err != nil {
		p.t.Fatal(err)
	}
	return list
}

// usePodman does with an image of the mount what a user would: look, push, change it
// in a container.
func usePodman(t *testing.T, p *podmanCall, want *treetest.Image, name string) {
	t.Helper()
	list := p.images()
	if len(list) != 1 || !list[0].ReadOnly || !slices.Contains(list[0].Names, name) {
		t.Errorf("podman images: %+v, want %s, read-only", list, name)
	}
	p.ok("image", "tree", name)
	p.ok("history", name)
	var ids []string
	for _, id := range want.DiffIDs {
		ids = append(ids, "sha256:"+id)
	}
	if got := p.pushed(name); !slices.Equal(got, ids) {
		t.Errorf("pushed layers %v, want %v", got, ids)
	}
	if err := p.command("rmi", name).Run(); err == nil {
		t.Error("podman has removed an image of the mount")
	}
}

// TestPodman uses the mount as an additional image store of podman, as root.
func TestPodman(t *testing.T) {
	testenv.Require(t, "root", "fuse", "shared", "podman")
	file := filepath.Join(testenv.Shared(t), "images/tiny-busybox.docker.tar")
	images, err := treetest.ReadArchive(file, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := newStore(t, nil)
	name := s.load("-i", file)
	mnt := s.mount()
	p := newPodman(t, s, mnt, nil)
	usePodman(t, p, &images[0], name)

	id := p.ok("create", name, "sh")
	merged := p.ok("mount", id)
	got := s.take(merged)
	got.Problems = nil // overlayfs numbers directories in its own way
	report(t, "rootfs in podman", treetest.Diff(s.take(filepath.Join(imageDir(mnt, name), "rootfs")), got, &treetest.Options{
		Opaque: true, // overlayfs passes questions for user.overlay.opaque on
		Entry: func(path string, want, got *treetest.Entry) {
			if path == "." {
				want.Mtime = got.Mtime // the root is that of the container
			}
		},
	}))
	for _, change := range []string{"touch new", "mv data moved", "rm -rf etc", "mkdir etc", "chmod 0700 moved/a", "ln moved/x hard || ln new hard"} {
		cmd := exec.Command("sh", "-c", change)
		cmd.Dir = merged
		if out, err := cmd.CombinedOutput(); err != nil && !strings.HasPrefix(change, "mv") {
			t.Errorf("%s: %v %s", change, err, out)
		}
	}
	p.ok("umount", id)
	p.ok("commit", "-q", id, "mine")
	p.ok("rm", id)
	if got := p.pushed("mine"); len(got) != len(images[0].DiffIDs)+1 || got[0] != "sha256:"+images[0].DiffIDs[0] {
		t.Errorf("the committed image has the layers %v", got)
	}
	// An image whose layers the mount has is loaded without storing them again.
	p.ok("load", "-q", "-i", file)
	if dirs, _ := filepath.Glob(p.dir + "/root/overlay/*/diff"); len(dirs) != 1 {
		t.Errorf("podman has stored layers of its own: %v", dirs)
	}

	// What is loaded later shows up.
	more := s.load("-i", filepath.Join(testenv.Shared(t), "images/alpine.docker.tar"))
	if list := p.images(); !slices.ContainsFunc(list, func(i podmanImage) bool { return slices.Contains(i.Names, more) }) {
		t.Errorf("podman images: %+v, want %s among them", list, more)
	}
}

// TestPodmanAsUser does it as an ordinary user, with a mount of his own.
func TestPodmanAsUser(t *testing.T) {
	testenv.Require(t, "root", "fuse", "fusermount3", "shared", "podman", "newuidmap")
	account := testenv.User(t)
	file := filepath.Join(testenv.Shared(t), "images/tiny-busybox.docker.tar")
	images, err := treetest.ReadArchive(file, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := newStore(t, &account)
	name := s.load("-i", readable(t, file, account))
	mnt := s.mount()
	p := newPodman(t, s, mnt, &account)
	t.Cleanup(p.endPause)
	usePodman(t, p, &images[0], name)
	script := `set -e; C=$(podman create ` + name + ` sh); M=$(podman mount $C); stat -c '%u:%g' $M/etc; touch $M/new; mv $M/data/a $M/data/b; rm -rf $M/etc; podman umount $C >/dev/null; podman commit -q $C mine >/dev/null; podman rm $C >/dev/null`
	if got := p.ok("unshare", "sh", "-c", script); got != "0:0" {
		t.Errorf("owner of /etc: %s, want 0:0", got)
	}
	if got := p.pushed("localhost/mine"); len(got) != len(images[0].DiffIDs)+1 {
		t.Errorf("the committed image has the layers %v", got)
	}
}
