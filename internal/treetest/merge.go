package treetest

import (
	"archive/tar"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Merge unpacks uncompressed layers, bottom first, one over the other into dir,
// which it makes, with GNU tar. Whiteouts are carried out on what the layers
// below left before the layer's own members are unpacked. Unlike with overlayfs
// a member may be a hard link to a file of a lower layer. It needs root.
func Merge(files []string, dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	// What directories that no layer lists get, as in Extract.
	times := map[string]time.Time{".": time.Unix(0, 0)}
	for _, file := range files {
		var headers []*tar.Header
		err := eachMember(file, func(h *tar.Header) error {
			headers = append(headers, h)
			return nil
		})
		if err != nil {
			return err
		}
		if err := prepare(dir, headers); err != nil {
			return err
		}
		if err := untar(file, dir, "--wildcards", "--exclude=.wh.*"); err != nil {
			return err
		}
		if err := settle(dir, headers, times); err != nil {
			return err
		}
	}
	for _, p := range slices.Backward(sortedKeys(times)) {
		if err := setTime(filepath.Join(dir, p), times[p]); err != nil {
			return err
		}
	}
	return nil
}

// prepare removes what a layer deletes or replaces by another type.
func prepare(dir string, headers []*tar.Header) error {
	for _, h := range headers {
		p := clean(h.Name)
		base, full := path.Base(p), filepath.Join(dir, p)
		switch {
		case base == opaqueMarker:
			names, err := os.ReadDir(filepath.Dir(full))
			if err != nil && !os.IsNotExist(err) {
				return err
			}
			for _, n := range names {
				if err := os.RemoveAll(filepath.Join(filepath.Dir(full), n.Name())); err != nil {
					return err
				}
			}
		case strings.HasPrefix(base, whiteoutPrefix+whiteoutPrefix):
		case strings.HasPrefix(base, whiteoutPrefix):
			if err := os.RemoveAll(filepath.Join(filepath.Dir(full), strings.TrimPrefix(base, whiteoutPrefix))); err != nil {
				return err
			}
		default:
			st, err := os.Lstat(full)
			if err == nil && st.IsDir() != (h.Typeflag == tar.TypeDir) {
				if err := os.RemoveAll(full); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// settle notes the times of directories that a layer lists, and gives those it
// implies and that are new the metadata of implied ones.
func settle(dir string, headers []*tar.Header, times map[string]time.Time) error {
	for _, h := range headers {
		if h.Typeflag == tar.TypeDir {
			times[clean(h.Name)] = h.ModTime
		}
	}
	dirs, _, err := survey(dir)
	if err != nil {
		return err
	}
	for p := range times {
		if _, ok := dirs[p]; !ok {
			delete(times, p)
		}
	}
	for p := range dirs {
		if _, ok := times[p]; ok {
			continue
		}
		times[p] = time.Unix(0, 0)
		full := filepath.Join(dir, p)
		if err := os.Lchown(full, 0, 0); err != nil {
			return err
		}
		if err := unix.Chmod(full, 0o755); err != nil {
			return err
		}
	}
	return nil
}
