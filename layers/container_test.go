package layers

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/layerfs/layerfs/internal/disk"
)

// containerStore returns a store with the image app:1.
func containerStore(t testing.TB) (*Store, *Image) {
	t.Helper()
	s := newStore(t)
	s.runRoot = t.TempDir()
	img := load(t, s, image(t, archive(t, dir("etc"), file("etc/a", "a"))), "app:1")
	return s, img
}

func create(t testing.TB, s *Store, o ContainerOptions) *Container {
	t.Helper()
	c, err := s.CreateContainer(t.Context(), &o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestContainerLife(t *testing.T) {
	s, img := containerStore(t)
	c := create(t, s, ContainerOptions{Image: "app:1", Names: []string{"web"}, Labels: map[string]string{"tier": "front"}, Metadata: "m"})
	if c.Image != img.ID || c.ImageName != "docker.io/library/app:1" || !slices.Equal(c.Layers, img.Layers) || c.Slot == 0 {
		t.Errorf("record %+v", c)
	}
	for _, key := range []string{"web", c.ID, c.ID[:7]} {
		if got, err := s.Container(t.Context(), key); err != nil || got.ID != c.ID {
			t.Errorf("Container(%s): %v, %v", key, got, err)
		}
	}
	if err := s.RenameContainer(t.Context(), "web", "shop"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Container(t.Context(), "web"); !errors.Is(err, ErrContainerUnknown) {
		t.Errorf("the old name: %v", err)
	}
	if err := s.SetContainerLabels(t.Context(), "shop", map[string]string{"b": "2"}, []string{"tier", "absent"}); err != nil {
		t.Fatal(err)
	}
	if err := s.SetContainerMetadata(t.Context(), "shop", "n"); err != nil {
		t.Fatal(err)
	}
	got, err := s.Container(t.Context(), "shop")
	if err != nil || len(got.Labels) != 1 || got.Labels["b"] != "2" || got.Metadata != "n" {
		t.Errorf("after the changes: %+v, %v", got, err)
	}
	if _, err := s.DeleteContainer(t.Context(), "shop", false); err != nil {
		t.Fatal(err)
	}
	if left := listing(t, filepath.Join(s.root, "containers")); len(left) > 1 {
		t.Errorf("left behind: %q", left)
	}
	if _, err := s.DeleteContainer(t.Context(), "shop", false); !errors.Is(err, ErrContainerUnknown) {
		t.Errorf("second delete: %v", err)
	}
}

func TestContainerBadInput(t *testing.T) {
	s, _ := containerStore(t)
	c := create(t, s, ContainerOptions{Names: []string{"web"}})
	before := listing(t, s.root)
	tests := []struct {
		name string
		o    ContainerOptions
		want error
	}{
		{"unknown image", ContainerOptions{Image: "absent"}, ErrImageUnknown},
		{"taken name", ContainerOptions{Image: "app:1", Names: []string{"web"}}, ErrDuplicateName},
		{"taken ID", ContainerOptions{Image: "app:1", ID: c.ID}, ErrDuplicateID},
		{"bad ID", ContainerOptions{ID: "../../etc"}, ErrInvalidName},
		{"bad name", ContainerOptions{Names: []string{"a/b"}}, ErrInvalidName},
		{"dots", ContainerOptions{Names: []string{".."}}, ErrInvalidName},
		{"name like an ID", ContainerOptions{Names: []string{strings.Repeat("a", 64)}}, ErrInvalidName},
		{"empty label", ContainerOptions{Labels: map[string]string{"": "x"}}, ErrInvalidLabel},
		{"label with =", ContainerOptions{Labels: map[string]string{"a=b": "x"}}, ErrInvalidLabel},
		{"binary label", ContainerOptions{Labels: map[string]string{"a": "\xff"}}, ErrInvalidLabel},
		{"long label", ContainerOptions{Labels: map[string]string{"a": strings.Repeat("x", 5000)}}, ErrInvalidLabel},
	}
	for _, tt := range tests {
		if _, err := s.CreateContainer(t.Context(), &tt.o); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	if after := listing(t, s.root); !slices.Equal(before, after) {
		t.Errorf("something was left behind:\n%q\n%q", before, after)
	}
}

func TestContainerFilters(t *testing.T) {
	s, _ := containerStore(t)
	load(t, s, image(t, archive(t, dir("etc"), file("etc/a", "a")), archive(t, file("b", "b"))), "child:1")
	a := create(t, s, ContainerOptions{Image: "app:1", Names: []string{"web1"}, Labels: map[string]string{"tier": "front", "x": "1"}})
	b := create(t, s, ContainerOptions{Image: "child:1", Names: []string{"web2"}, Labels: map[string]string{"tier": "back"}})
	c := create(t, s, ContainerOptions{Names: []string{"db"}})
	tests := []struct {
		name string
		f    *ContainerFilter
		want []string
	}{
		{"all, newest first", nil, []string{c.ID, b.ID, a.ID}},
		{"label", &ContainerFilter{Labels: []string{"tier"}}, []string{b.ID, a.ID}},
		{"label value", &ContainerFilter{Labels: []string{"tier=front"}}, []string{a.ID}},
		{"two labels", &ContainerFilter{Labels: []string{"tier", "x=2"}}, nil},
		{"name", &ContainerFilter{Names: []string{"^db$", "2"}}, []string{c.ID, b.ID}},
		{"id", &ContainerFilter{IDs: []string{a.ID[:9]}}, []string{a.ID}},
		{"ancestor", &ContainerFilter{Ancestors: []string{"app:1"}}, []string{b.ID, a.ID}},
		{"ancestor itself", &ContainerFilter{Ancestors: []string{"child:1"}}, []string{b.ID}},
	}
	for _, tt := range tests {
		list, err := s.Containers(t.Context(), tt.f)
		var got []string
		for _, c := range list {
			got = append(got, c.ID)
		}
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%s: %.7q, %v, want %.7q", tt.name, got, err, tt.want)
		}
	}
	if _, err := s.Containers(t.Context(), &ContainerFilter{Ancestors: []string{"absent"}}); !errors.Is(err, ErrImageUnknown) {
		t.Errorf("unknown ancestor: %v", err)
	}
	if _, err := s.Containers(t.Context(), &ContainerFilter{Names: []string{"("}}); !errors.Is(err, ErrInvalidName) {
		t.Errorf("bad expression: %v", err)
	}
}

// An image that containers are made of cannot be removed, and collection keeps all
// they need.
func TestContainerPinsImage(t *testing.T) {
	s, img := containerStore(t)
	create(t, s, ContainerOptions{Image: "app:1", Names: []string{"web"}})
	_, err := s.Remove(t.Context(), string(img.ID), &RemoveOptions{Force: true})
	if !errors.Is(err, ErrImageUsedByContainer) || !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "web") {
		t.Errorf("Remove: %v, want ErrImageUsedByContainer that names the container", err)
	}
	if _, err := s.GC(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if _, err := s.OpenLayer(img.DiffIDs()[0]); err != nil {
		t.Fatal(err)
	} else {
		l, _ := s.OpenLayer(img.DiffIDs()[0])
		l.Close()
		l.Close()
	}
	if _, err := s.DeleteContainer(t.Context(), "web", false); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove(t.Context(), string(img.ID), nil); err != nil {
		t.Errorf("Remove without the container: %v", err)
	}
}

func TestContainerWriter(t *testing.T) {
	s, _ := containerStore(t)
	c := create(t, s, ContainerOptions{Image: "app:1", Names: []string{"web"}})
	if who, ok := s.ContainerWriter(c.ID); ok {
		t.Errorf("nobody writes, but %s does", who)
	}
	lock, err := s.LockContainer(c.ID, "mount /mnt")
	if err != nil {
		t.Fatal(err)
	}
	if who, ok := s.ContainerWriter(c.ID); !ok || !strings.Contains(who, "mount /mnt") {
		t.Errorf("writer %q, %v", who, ok)
	}
	if _, err := s.LockContainer(c.ID, "other"); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "mount /mnt") {
		t.Errorf("second writer: %v", err)
	}
	if _, err := s.DeleteContainer(t.Context(), "web", false); !errors.Is(err, ErrInUse) {
		t.Errorf("delete while somebody writes: %v", err)
	}
	if r, err := s.GC(t.Context(), false); err != nil || len(r.Containers) != 0 {
		t.Errorf("GC: %v, %v", r, err)
	}
	// Removed by force, it goes with its writer.
	if _, err := s.DeleteContainer(t.Context(), "web", true); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.UpperPath(c.ID)); err != nil {
		t.Errorf("the writer lost its directory: %v", err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.containerDir(c.ID)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
	if _, err := s.LockContainer(c.ID, "x"); !errors.Is(err, ErrContainerUnknown) {
		t.Errorf("lock of what is gone: %v", err)
	}
}

// A directory without a record is what a kill leaves.
func TestContainerSweep(t *testing.T) {
	s, _ := containerStore(t)
	id := strings.Repeat("ab", 32)
	if err := os.MkdirAll(filepath.Join(s.UpperPath(id), "dir"), 0o700); err != nil {
		t.Fatal(err)
	}
	if r, err := s.GC(t.Context(), true); err != nil || !slices.Equal(r.Containers, []string{id}) {
		t.Errorf("dry run: %+v, %v", r, err)
	}
	if _, err := s.GC(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if left := listing(t, filepath.Join(s.root, "containers")); len(left) > 1 {
		t.Errorf("left behind: %q", left)
	}
}

func TestContainerFiles(t *testing.T) {
	s, _ := containerStore(t)
	c := create(t, s, ContainerOptions{Names: []string{"web"}})
	for _, run := range []bool{false, true} {
		if err := s.SetContainerFile(t.Context(), "web", run, "net", strings.NewReader("10.0.0.1")); err != nil {
			t.Fatal(err)
		}
		if data, err := s.ContainerFile(t.Context(), "web", run, "net"); string(data) != "10.0.0.1" || err != nil {
			t.Errorf("read %q, %v", data, err)
		}
		for _, bad := range []string{"", ".", "..", "../x", "a/b", "/etc/passwd", "a\x00", strings.Repeat("n", 256)} {
			if err := s.SetContainerFile(t.Context(), "web", run, bad, strings.NewReader("x")); !errors.Is(err, ErrInvalidName) {
				t.Errorf("write of %q: %v", bad, err)
			}
			if _, err := s.ContainerFile(t.Context(), "web", run, bad); !errors.Is(err, ErrInvalidName) {
				t.Errorf("read of %q: %v", bad, err)
			}
			if err := s.RemoveContainerFile(t.Context(), "web", run, bad); !errors.Is(err, ErrInvalidName) {
				t.Errorf("removal of %q: %v", bad, err)
			}
		}
		dir, err := s.directoryOf(t.Context(), "web", run)
		if err != nil {
			t.Fatal(err)
		}
		outside := filepath.Join(t.TempDir(), "outside")
		if err := errors.Join(os.WriteFile(outside, []byte("secret"), 0o600), os.Symlink(outside, filepath.Join(dir, "link"))); err != nil {
			t.Fatal(err)
		}
		if data, err := s.ContainerFile(t.Context(), "web", run, "link"); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("through a symbolic link: %q, %v", data, err)
		}
		if err := s.SetContainerFile(t.Context(), "web", run, "link", strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
		if data, _ := os.ReadFile(outside); string(data) != "secret" {
			t.Errorf("written through a symbolic link: %q", data)
		}
		if names, err := s.ContainerFiles(t.Context(), "web", run); err != nil || !slices.Equal(names, []string{"link", "net"}) {
			t.Errorf("files %q, %v", names, err)
		}
		if err := s.RemoveContainerFile(t.Context(), "web", run, "net"); err != nil {
			t.Error(err)
		}
	}
	// What another boot has left is removed.
	old := filepath.Join(s.runRoot, "containers", "another-boot", c.ID)
	if err := os.MkdirAll(old, 0o700); err != nil {
		t.Fatal(err)
	}
	run, err := s.ContainerRunDirectory(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("files of another boot: %v", err)
	}
	if _, err := s.DeleteContainer(t.Context(), "web", false); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(run); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the run directory is still there: %v", err)
	}
}

// TestCreateFaults fails each disk operation of a creation in turn: either the
// container is there or nothing is.
func TestCreateFaults(t *testing.T) {
	for n := int64(1); ; n++ {
		s, _ := containerStore(t)
		if _, err := os.Stat(filepath.Join(s.root, "containers")); err != nil {
			t.Fatal(err)
		}
		before := listing(t, s.root)
		var count atomic.Int64
		s.disk = &disk.Disk{Hook: func(disk.Op, string) error {
			if count.Add(1) == n {
				return syscall.ENOSPC
			}
			return nil
		}}
		_, err := s.CreateContainer(t.Context(), &ContainerOptions{Image: "app:1", Names: []string{"web"}})
		s.disk = nil
		if err == nil {
			if n < 5 {
				t.Errorf("only %d operations", n)
			}
			return
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("fault %d: %v", n, err)
		}
		if after := listing(t, s.root); !slices.Equal(before, after) {
			t.Errorf("fault %d left something behind:\n%q\n%q", n, before, after)
		}
		if _, err := s.Container(t.Context(), "web"); !errors.Is(err, ErrContainerUnknown) {
			t.Errorf("fault %d: %v", n, err)
		}
	}
}

func TestCatalogueShowsContainers(t *testing.T) {
	s, _ := containerStore(t)
	before, err := s.Catalogue(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := create(t, s, ContainerOptions{Image: "app:1", Names: []string{"web", "also"}, Labels: map[string]string{"a": "b"}})
	after, err := s.Catalogue(t.Context())
	if err != nil || after.Generation == before.Generation || len(after.Containers) != 1 {
		t.Fatalf("catalogue %+v, %v", after, err)
	}
	got := after.Containers[0]
	if got.ID != c.ID || !slices.Equal(got.Names, []string{"also", "web"}) || len(got.Layers) != 1 || got.Image != c.Image || got.Slot != c.Slot {
		t.Errorf("container %+v", got)
	}
	if text, err := got.Labels(); err != nil || string(text) != "{\n  \"a\": \"b\"\n}\n" {
		t.Errorf("labels %q, %v", text, err)
	}
}
