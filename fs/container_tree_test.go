package fs

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// countedLinks is what the kernel does not know of our upper directory: how many names a file of the image has lost.
var countedLinks = regexp.MustCompile(` [0-9]+ links| as [a-z/]+`)

// compareTrees compares everything that there is.
func (r *randomWorld) compareTrees(when string, except ...*regexp.Regexp) {
	r.t.Helper()
	got, want := takeTree(r.t, r.roots[0]), takeTree(r.t, r.roots[1])
	for _, e := range except {
		for _, tree := range []map[string]string{got, want} {
			for p := range tree {
				tree[p] = e.ReplaceAllString(tree[p], "")
			}
		}
	}
	for p, w := range want {
		if got[p] != w {
			r.t.Errorf("%s: %s is\n   %s, but with overlayfs\n   %s", when, p, got[p], w)
		}
	}
	for p, g := range got {
		if _, ok := want[p]; !ok {
			r.t.Errorf("%s: %s is there: %s", when, p, g)
		}
	}
}

// takeTree says of each path what a user can see, times left out.
func takeTree(t *testing.T, root string) map[string]string {
	t.Helper()
	out := map[string]string{}
	first := map[uint64]string{}
	err := filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		text := describeStat(&st)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			body, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" %x", sha256.Sum256(body))
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			text += " " + target
		}
		if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			if first[st.Ino] == "" {
				first[st.Ino] = rel
			}
			text += " as " + first[st.Ino]
		}
		out[rel] = text + " " + xattrsOf(t, path)
		return nil
	})
	if err != nil {
		t.Errorf("%s: %v", root, err)
	}
	return out
}

func xattrsOf(t *testing.T, path string) string {
	buf := make([]byte, 4096)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		t.Errorf("listxattr %s: %v", path, err)
		return ""
	}
	names := strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
	slices.Sort(names)
	var out []string
	for _, name := range names {
		if name == "" || strings.HasPrefix(name, "trusted.overlay.") {
			continue
		}
		n, err := unix.Lgetxattr(path, name, buf)
		if err != nil {
			t.Errorf("getxattr %s %s: %v", path, name, err)
			continue
		}
		out = append(out, fmt.Sprintf("%s=%x", name, buf[:n]))
	}
	return strings.Join(out, " ")
}
