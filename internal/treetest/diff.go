package treetest

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Options leave out what cannot be equal. The zero value compares everything
// but the link counts of directories.
type Options struct {
	// Owners leaves out user and group.
	Owners bool
	// DirNlink compares the link counts of directories too.
	DirNlink bool
	// Opaque leaves out the opaque mark of directories.
	Opaque bool
	// Skip leaves out a path and everything below it.
	Skip func(path string) bool
	// Entry, if set, may change copies of two entries before they are compared.
	Entry func(path string, want, got *Entry)
}

// Diff returns a line for everything that differs between two trees, by path:
//
//	usr/bin/su: mode: want 04755, got 0755
//
// What one side was not permitted to read is not compared. It includes the
// problems that got has in itself. nil means that the trees are equal.
func Diff(want, got *Snapshot, o *Options) []string {
	if o == nil {
		o = &Options{}
	}
	d := &differ{o: o}
	for _, p := range got.Problems {
		d.lines = append(d.lines, "inconsistent: "+p)
	}
	hidden := hiddenBelow(want, got)
	for _, path := range union(want, got) {
		if (o.Skip != nil && under(path, o.Skip)) || under(Parent(path), hidden) {
			continue
		}
		d.path(path, want.Entries[path], got.Entries[path])
	}
	return d.lines
}

// hiddenBelow returns a test for directories that one side could not read.
func hiddenBelow(snaps ...*Snapshot) func(string) bool {
	return func(p string) bool {
		for _, s := range snaps {
			if e := s.Entries[p]; e != nil && e.Kind == Directory && e.Unreadable {
				return true
			}
		}
		return false
	}
}

// under says whether test holds for p or a directory above it.
func under(p string, test func(string) bool) bool {
	for ; ; p = Parent(p) {
		if test(p) {
			return true
		}
		if p == "." {
			return false
		}
	}
}

func union(a, b *Snapshot) []string {
	paths := a.Paths()
	for p := range b.Entries {
		if a.Entries[p] == nil {
			paths = append(paths, p)
		}
	}
	slices.Sort(paths)
	return paths
}

// differ collects the lines of one Diff.
type differ struct {
	o     *Options
	lines []string
}

func (d *differ) path(path string, want, got *Entry) {
	switch {
	case want == nil:
		d.lines = append(d.lines, fmt.Sprintf("%q: is there (%v), but should not be", path, got.Kind))
		return
	case got == nil:
		d.lines = append(d.lines, fmt.Sprintf("%q: is missing, want a %v", path, want.Kind))
		return
	case want.Kind != got.Kind:
		d.lines = append(d.lines, fmt.Sprintf("%q: type: want %v, got %v", path, want.Kind, got.Kind))
		return
	case want.Whiteout() && got.Whiteout():
		return // nothing else of a whiteout means anything
	}
	if d.o.Entry != nil {
		w, g := *want, *got
		want, got = &w, &g
		d.o.Entry(path, want, got)
	}
	for _, f := range d.fields(want, got) {
		if f.want != f.got {
			d.lines = append(d.lines, fmt.Sprintf("%q: %s: want %s, got %s", path, f.name, f.want, f.got))
		}
	}
}

// field is one thing that is compared, as text.
type field struct{ name, want, got string }

func (d *differ) fields(want, got *Entry) []field {
	list := []field{
		{"mode", fmt.Sprintf("%#o", want.Mode), fmt.Sprintf("%#o", got.Mode)},
		{"mtime", stamp(want.Mtime), stamp(got.Mtime)},
		{"xattrs", showXattrs(want), showXattrs(got)},
	}
	if !d.o.Owners {
		list = append(list, field{"owner", owner(want), owner(got)})
	}
	if want.Kind == Directory {
		if !d.o.Opaque {
			list = append(list, field{"opaque", fmt.Sprint(want.Opaque), fmt.Sprint(got.Opaque)})
		}
		if d.o.DirNlink {
			list = append(list, field{"nlink", fmt.Sprint(want.Nlink), fmt.Sprint(got.Nlink)})
		}
		return list
	}
	list = append(
		list,
		field{"size", fmt.Sprint(want.Size), fmt.Sprint(got.Size)},
		field{"nlink", fmt.Sprint(want.Nlink), fmt.Sprint(got.Nlink)},
		field{"hard link of", want.Group, got.Group},
		field{"target", fmt.Sprintf("%q", want.Target), fmt.Sprintf("%q", got.Target)},
		field{"device", device(want), device(got)},
	)
	if !want.Unreadable && !got.Unreadable {
		list = append(list, field{"sha256", fmt.Sprintf("%x", want.Sum), fmt.Sprintf("%x", got.Sum)})
	}
	return list
}

func stamp(t time.Time) string { return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond()) }

func owner(e *Entry) string { return fmt.Sprintf("%d:%d", e.UID, e.GID) }

func device(e *Entry) string { return fmt.Sprintf("%d:%d", e.Rdev>>32, e.Rdev&0xffffffff) }

func showXattrs(e *Entry) string {
	list := make([]string, 0, len(e.Xattrs))
	for name, value := range e.Xattrs {
		if len(value) > 80 {
			value = fmt.Sprintf("%s… (%d bytes, sha256 %x)", value[:16], len(value), sha256.Sum256([]byte(value)))
		}
		list = append(list, fmt.Sprintf("%q=%q", name, value))
	}
	slices.Sort(list)
	return "{" + strings.Join(list, " ") + "}"
}
