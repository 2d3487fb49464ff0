package union

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/layerfs/layerfs/index/tree"
	"github.com/layerfs/layerfs/internal/testenv"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// TestKernel compares random stacks with kernel overlayfs over the same layers as
// directories. Opaque roots are left out: overlayfs looks for the mark on
// directories that it looks up, and nobody looks up a root.
func TestKernel(t *testing.T) {
	testenv.Require(t, "root", "overlayfs")
	dir := t.TempDir()
	mnt := filepath.Join(dir, "mnt")
	must(t, os.Mkdir(mnt, 0o755))
	rapid.Check(t, func(t *rapid.T) {
		var layers []*tree.Tree
		defer func() { closeAll(layers) }()
		work, err := os.MkdirTemp(dir, "layers")
		must(t, err)
		defer os.RemoveAll(work)
		var lower []string
		tag := int64(1)
		for i := range rapid.IntRange(2, 6).Draw(t, "layers") {
			layers = append(layers, drawLayer(t, dir, genOpts{ops: 12}, &tag))
			if a, err := layers[i].Attr(0); err != nil || a.Opaque {
				t.Skip("opaque root")
			}
			lower = append(lower, filepath.Join(work, fmt.Sprint(i)))
			must(t, materialise(layers[i], lower[i], i))
		}
		slices.Reverse(lower)
		must(t, unix.Mount("overlay", mnt, "overlay", unix.MS_RDONLY, "lowerdir="+strings.Join(lower, ":")))
		defer unix.Unmount(mnt, unix.MNT_DETACH)
		got, want := map[string]string{}, map[string]string{}
		must(t, describeStack(New(layers), got))
		must(t, describeDir(mnt, want))
		for p := range want {
			if got[p] != want[p] {
				t.Fatalf("%q: got %q, overlayfs has %q", p, got[p], want[p])
			}
		}
		for p := range got {
			if _, ok := want[p]; !ok {
				t.Fatalf("%q: got %q, overlayfs has nothing", p, got[p])
			}
		}
	})
}

// materialise makes a layer a lower directory of overlayfs.
func materialise(t *tree.Tree, dir string, layer int) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	first := map[tree.Ino]string{}
	for _, f := range enumerate(t, 0, "") {
		p := filepath.Join(dir, f.path)
		if old := first[f.Ino]; old != "" && f.Kind != tree.KindDirectory && f.Kind != tree.KindWhiteout {
			if err := os.Link(old, p); err != nil {
				return err
			}
			continue
		}
		if err := makeFile(t, f, p, layer); err != nil {
			return err
		}
		if f.Kind != tree.KindWhiteout {
			first[f.Ino] = p
		}
	}
	return nil
}

// makeFile makes one file of a layer.
func makeFile(t *tree.Tree, f found, p string, layer int) error {
	switch f.Kind {
	case tree.KindWhiteout:
		return unix.Mknod(p, unix.S_IFCHR, 0)
	case tree.KindSymlink:
		target, err := t.Symlink(f.Ino)
		if err != nil {
			return err
		}
		return os.Symlink(string(target), p)
	case tree.KindRegular:
		return os.WriteFile(p, fmt.Appendf(nil, "%d:%d", layer, f.Ino), 0o600)
	}
	a, err := t.Attr(f.Ino)
	if err != nil {
		return err
	}
	if err := os.Mkdir(p, 0o755); err != nil {
		return err
	}
	if !a.Implied {
		if err := os.Chmod(p, os.FileMode(a.Mode)); err != nil {
			return err
		}
	}
	if a.Opaque {
		return unix.Setxattr(p, "trusted.overlay.opaque", []byte("y"), 0)
	}
	return nil
}

// describeStack describes every path of a stack: kind, links, content.
func describeStack(s *Stack, out map[string]string) error {
	return s.Walk(func(p []byte, n Node) error {
		a, err := s.Attr(n)
		if err != nil {
			return err
		}
		what := fmt.Sprintf("%d %d ", n.Kind, a.Nlink)
		switch n.Kind {
		case tree.KindRegular:
			what += fmt.Sprintf("%d:%d", n.Layer, n.Ino)
		case tree.KindSymlink:
			target, err := s.Layer(n.Layer).Symlink(n.Ino)
			if err != nil {
				return err
			}
			what += string(target)
		}
		out[string(p)] = what
		return nil
	})
}

// describeDir does the same for a directory of the host.
func describeDir(dir string, out map[string]string) error {
	return filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err == unix.ENOENT {
			// overlayfs lists a directory that is not merged as it is, with
			// the whiteouts that hide nothing, but does not find them.
			return nil
		} else if err != nil {
			return err
		}
		kind, content := tree.KindDirectory, ""
		switch {
		case d.Type().IsRegular():
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			kind, content = tree.KindRegular, string(b)
		case d.Type()&os.ModeSymlink != 0:
			if content, err = os.Readlink(p); err != nil {
				return err
			}
			kind = tree.KindSymlink
		case !d.IsDir():
			kind = tree.KindUnset
		}
		out[strings.TrimPrefix(p, dir+"/")] = fmt.Sprintf("%d %d %s", kind, st.Nlink, content)
		return nil
	})
}
