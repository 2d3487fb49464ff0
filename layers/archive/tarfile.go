package archive

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

const (
	// maxMembers limits how many members are remembered.
	maxMembers = 1 << 16
	// maxName limits the names of members that are remembered.
	maxName = 512
	// maxLinks limits how many links lead to a layer one after the other.
	maxLinks = 16
)

// A tarMember is a member that can belong to an image.
type tarMember struct {
	offset, size int64
	link         string // of a symbolic or hard link: the name of another member
	other        bool   // neither file nor link, or stored in a way that cannot be read in place
	twice        bool
}

// A tarFile is a tar whose members are found by offset.
type tarFile struct {
	f       *os.File
	size    int64
	name    string // for messages
	members map[string]tarMember
	first   string // name of the first member, for messages
	total   int64  // members seen
	rootfs  bool   // has members like a root file system
	parts   bool   // has members that only images have
}

// wanted tells the members that can belong to an image from all others. It is
// asked for every member of what may be a large root file system.
func wanted(name string) bool {
	dir, last := path.Split(name)
	switch dir {
	case "":
		return last == "oci-layout" || last == "repositories" || strings.HasSuffix(last, ".json") ||
			strings.HasPrefix(last, "sha256:") || isLayerName(last) // sha256: a config of ggcr
	case "blobs/sha256/":
		return isHex(last)
	}
	return strings.Count(dir, "/") == 1 && isLayerName(last)
}

// isLayerName recognizes <ID>/layer.tar of docker before 25, <ID>.tar of podman and
// skopeo, and compressed layers of others.
func isLayerName(name string) bool {
	for _, suffix := range []string{".tar", ".tar.gz", ".tgz", ".tar.zst"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return false
}

// isHex says whether s is a SHA-256 in hexadecimal.
func isHex(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// isImagePart tells what only an archive of images has.
func isImagePart(name string) bool {
	name = strings.TrimPrefix(name, "blobs/sha256/")
	return len(name) >= 64 && isHex(name[:64]) && (len(name) == 64 || name[64:] == ".json" || name[64:] == ".tar" || name[64:] == "/layer.tar")
}

// isRootfs tells what a root file system has and an archive of images has not.
func isRootfs(name string) bool {
	top, _, _ := strings.Cut(name, "/")
	return slices.Contains([]string{"etc", "usr", "bin", "sbin", "lib", "var"}, top)
}

// scan reads all headers of the tar, not the content of members.
func (t *tarFile) scan() error {
	section := io.NewSectionReader(t.f, 0, t.size)
	r := tar.NewReader(section)
	t.members = make(map[string]tarMember)
	last := ""
	for {
		h, err := r.Next()
		offset, _ := section.Seek(0, io.SeekCurrent) // a SectionReader always knows
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return t.scanError(err, last, offset)
		}
		if t.total++; t.total == 1 {
			t.first = h.Name
		}
		last = h.Name
		if err := t.note(h, offset); err != nil {
			return err
		}
	}
}

func (t *tarFile) scanError(err error, last string, offset int64) error {
	where := "before the first member"
	if t.total > 0 {
		where = fmt.Sprintf("in or after member %q", clip(last))
	}
	offset = min(offset, t.size)
	if err == io.ErrUnexpectedEOF {
		return fmt.Errorf("%s: %w: it is truncated %s, at offset %d; get the file again", t.name, ErrDamaged, where, offset)
	}
	return fmt.Errorf("%s: %w %s, at offset %d: %w", t.name, ErrDamaged, where, offset, err)
}

// note remembers a member whose content starts at offset.
func (t *tarFile) note(h *tar.Header, offset int64) error {
	name, ok := cleanName(h.Name)
	if !ok {
		return nil
	}
	if !t.rootfs && isRootfs(name) {
		t.rootfs = true
	}
	if !t.parts && isImagePart(name) {
		t.parts = true
	}
	if len(name) > maxName || !wanted(name) {
		return nil
	}
	m := tarMember{offset: offset, size: h.Size}
	switch {
	case h.Typeflag == tar.TypeSymlink:
		m.link, ok = cleanName(path.Join(path.Dir(name), h.Linkname))
	case h.Typeflag == tar.TypeLink:
		m.link, ok = cleanName(h.Linkname)
	case h.Typeflag == tar.TypeDir:
		return nil
	case h.Typeflag != tar.TypeReg || isSparse(h):
		m.other = true
	}
	if !ok || len(m.link) > maxName {
		m.link, m.other = "", true // leads out of the archive
	}
	if _, m.twice = t.members[name]; !m.twice && len(t.members) >= maxMembers {
		return fmt.Errorf("%s: %w: more than %d members that could belong to an image", t.name, ErrTooLarge, maxMembers)
	}
	t.members[name] = m
	return nil
}

// isSparse says whether the content of a member is not stored as it is.
func isSparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// cleanName removes "./" and slashes that do not matter. Names that lead out of
// the archive are of no use.
func cleanName(name string) (string, bool) {
	name = strings.TrimLeft(path.Clean(name), "/")
	return name, name != "" && name != "." && name != ".." && !strings.HasPrefix(name, "../")
}

// has says whether there is a member of this name.
func (t *tarFile) has(name string) bool {
	_, ok := t.members[name]
	return ok
}

// open implements container. Links are followed from member to member.
func (t *tarFile) open(name string) (*file, error) {
	m, err := t.find(name)
	if err != nil {
		return nil, err
	}
	return &file{SectionReader: io.NewSectionReader(t.f, m.offset, m.size)}, nil
}

// find returns the member that holds the content of name.
func (t *tarFile) find(name string) (tarMember, error) {
	at := name
	for range maxLinks {
		m, ok := t.members[at]
		switch {
		case !ok && at != name:
			return m, fmt.Errorf("%s: %w: it is a link to %q, which is not in the archive", t.member(name), ErrDamaged, clip(at))
		case !ok:
			return m, fmt.Errorf("%s: it is %w in the archive", t.member(name), errMissing)
		case m.other:
			return m, fmt.Errorf("%s: %w: it is no regular file, leads out of the archive or is stored sparse", t.member(name), ErrUnsupported)
		case m.twice && strings.HasSuffix(at, ".json"):
			// Readers differ in which one they believe, so that one could be shown to a
			// scanner and another be loaded.
			return m, fmt.Errorf("%s: %w: the archive holds it twice", t.member(at), ErrDamaged)
		case m.link == "":
			return m, nil
		}
		at = m.link
	}
	return tarMember{}, fmt.Errorf("%s: %w: its links form a loop", t.member(name), ErrDamaged)
}

// errMissing is fs.ErrNotExist with words that fit a member.
var errMissing error = missingError{}

type missingError struct{}

func (missingError) Error() string        { return "missing" }
func (missingError) Is(target error) bool { return target == fs.ErrNotExist }

// member implements container.
func (t *tarFile) member(name string) string { return fmt.Sprintf("%s: member %q", t.name, clip(name)) }

// Close implements container.
func (t *tarFile) Close() error { return t.f.Close() }

// whatElse says what a tar is that is neither a docker-archive nor an OCI archive.
func (t *tarFile) whatElse() error {
	switch {
	case t.has("repositories"):
		return fmt.Errorf("%s: %w: it is in the format of docker before 1.10 (repositories, but no manifest.json); load it with docker and save it again", t.name, ErrUnsupported)
	case t.parts && !t.has("index.json"):
		return fmt.Errorf("%s: %w: it has parts of an image after %d bytes, but neither manifest.json nor index.json; it is truncated or incomplete, get it again", t.name, ErrDamaged, t.size)
	case t.has("index.json"):
		return fmt.Errorf("%s: %w: it has index.json, but neither oci-layout nor manifest.json", t.name, ErrNotArchive)
	case t.rootfs:
		return fmt.Errorf("%s: %w: it looks like the tar of a root file system; use `layerfs import` for that", t.name, ErrNotArchive)
	case t.total == 0:
		return fmt.Errorf("%s: %w: it is a tar without members", t.name, ErrNotArchive)
	}
	return fmt.Errorf("%s: %w: it is a tar that starts with %q and has neither manifest.json nor oci-layout and index.json; `layerfs import` makes an image of any tar",
		t.name, ErrNotArchive, clip(t.first))
}

// clip shortens a name from an archive for a message.
func clip(name string) string {
	if len(name) > 120 {
		return name[:120] + "…"
	}
	return name
}
