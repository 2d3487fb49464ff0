package treetest

import (
	"archive/tar"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	whiteoutPrefix = ".wh."
	opaqueMarker   = ".wh..wh..opq"
	opaqueXattr    = "trusted.overlay.opaque"
)

// Layer is a layer unpacked into a directory of its own, in the form that
// overlayfs takes as a lower directory.
type Layer struct {
	// Dir is the layer's root.
	Dir string
	// Implied are the directories that the tar does not list; they have mode
	// 0755, owner 0:0 and the time 0 until [Stack] fixes them.
	Implied []string
}

// Extract unpacks the uncompressed layer in file into dir, which it makes, with
// GNU tar, and then turns whiteouts into what overlayfs calls so: `.wh.x` into
// a character device 0:0 named x, the opaque marker into an extended attribute.
// A whiteout works on the layers below only: where the same layer has the name
// too, a file stays and a directory becomes opaque.
//
// It needs root. Members that GNU tar cannot make are an error.
func Extract(file, dir string) (*Layer, error) {
	listed, err := scan(file)
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	if err := untar(file, dir); err != nil {
		return nil, err
	}
	if err := listed.setACLs(dir); err != nil {
		return nil, err
	}
	dirs, marks, err := survey(dir)
	if err != nil {
		return nil, err
	}
	l := &Layer{Dir: dir}
	for _, m := range marks {
		if err := convert(dir, m); err != nil {
			return nil, err
		}
	}
	// Deepest first: setting a time changes no other directory's.
	for _, p := range slices.Backward(sortedKeys(dirs)) {
		full := filepath.Join(dir, p)
		if listed.dirs[p] {
			err = setTime(full, dirs[p])
		} else {
			l.Implied = append(l.Implied, p)
			err = setMeta(full, 0o755, 0, 0, time.Unix(0, 0))
		}
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(l.Implied)
	return l, nil
}

// untar runs GNU tar. The umask does not matter with -p.
func untar(file, dir string, more ...string) error {
	args := append([]string{
		"--xattrs", "--xattrs-include=*", "--xattrs-exclude=trusted.overlay.*", "--xattrs-exclude=user.overlay.*",
		"--xattrs-exclude=user.fuseoverlayfs.*", "--numeric-owner", "--same-owner", "--delay-directory-restore", "-p", "-x", "-f", file, "-C", dir,
	}, more...)
	if out, err := exec.Command("tar", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: tar: %w: %s", file, err, out)
	}
	return nil
}

// members is what a tar says about its directories and access lists.
type members struct {
	dirs map[string]bool
	acls map[string]map[string]string
}

// scan reads the headers of a tar.
func scan(file string) (*members, error) {
	m := &members{dirs: map[string]bool{}, acls: map[string]map[string]string{}}
	err := eachMember(file, func(h *tar.Header) error {
		p := clean(h.Name)
		m.dirs[p] = h.Typeflag == tar.TypeDir
		delete(m.acls, p)
		for key, value := range h.PAXRecords {
			// GNU tar leaves these to --acls, which reads another form.
			if name, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok && strings.HasPrefix(name, "system.posix_acl_") {
				if m.acls[p] == nil {
					m.acls[p] = map[string]string{}
				}
				m.acls[p][name] = value
			}
		}
		return nil
	})
	return m, err
}

func (m *members) setACLs(dir string) error {
	for p, list := range m.acls {
		for name, value := range list {
			if err := unix.Lsetxattr(filepath.Join(dir, p), name, []byte(value), 0); err != nil {
				return fmt.Errorf("%s: setxattr %s: %w", p, name, err)
			}
		}
	}
	return nil
}

// clean turns a member's name into a path of a tree.
func clean(name string) string {
	if p := path.Clean("/" + name)[1:]; p != "" {
		return p
	}
	return "."
}

// survey finds the directories with their times, and the whiteout files.
func survey(dir string) (dirs map[string]time.Time, marks []string, err error) {
	dirs = map[string]time.Time{}
	err = filepath.WalkDir(dir, func(full string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		p, err := filepath.Rel(dir, full)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			st, err := d.Info()
			if err != nil {
				return err
			}
			dirs[p] = st.ModTime()
		case strings.HasPrefix(d.Name(), whiteoutPrefix):
			marks = append(marks, p)
		}
		return nil
	})
	return dirs, marks, err
}

// convert replaces one `.wh.` file.
func convert(dir, mark string) error {
	full := filepath.Join(dir, mark)
	if err := os.Remove(full); err != nil {
		return err
	}
	parent, name := filepath.Dir(full), filepath.Base(full)
	if name == opaqueMarker {
		return unix.Lsetxattr(parent, opaqueXattr, []byte("y"), 0)
	}
	name = strings.TrimPrefix(name, whiteoutPrefix)
	if name == "" || name == "." || name == ".." || strings.HasPrefix(name, whiteoutPrefix) {
		return nil // reserved names of aufs, which mean nothing here
	}
	hidden := filepath.Join(parent, name)
	st, err := os.Lstat(hidden)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return unix.Mknod(hidden, unix.S_IFCHR, 0)
	case err != nil:
		return err
	case st.IsDir():
		return unix.Lsetxattr(hidden, opaqueXattr, []byte("y"), 0)
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func setTime(name string, t time.Time) error {
	ts := unix.NsecToTimespec(t.UnixNano())
	return unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

func setMeta(name string, mode uint32, uid, gid int, t time.Time) error {
	if err := os.Lchown(name, uid, gid); err != nil {
		return err
	}
	if err := unix.Chmod(name, mode); err != nil {
		return err
	}
	return setTime(name, t)
}
