package tree

import (
	"fmt"
	"strings"
)

// maxHops is the number of symbolic links followed on the way to a path, as in
// Linux.
const maxHops = 40

// walk goes down path from the root, following symbolic links inside the layer.
// With create it makes the directories that are missing; else it stops at the
// first missing one and returns what is left of the path from there, with the
// directory where it stopped.
func (b *Builder) walk(path string, create bool) (dir uint32, rest string, err error) {
	hops := 0
	for path != "" {
		name, tail, _ := strings.Cut(path, "/")
		switch name {
		case "", ".":
			path = tail
			continue
		case "..":
			dir, path = b.up(dir), tail
			continue
		}
		next, k, err := b.step(dir, name)
		if err != nil {
			return 0, "", err
		}
		switch {
		case k == KindDirectory:
			dir, path = next, tail
		case k == KindUnset && !create:
			return dir, path, nil
		case k == KindUnset:
			n := node{kind: KindDirectory, mode: 0o755, flags: flagImplied}
			if dir, err = b.newDir(dir, name, n); err != nil {
				return 0, "", err
			}
			path = tail
		case k == KindSymlink:
			if hops++; hops > maxHops {
				return 0, "", fmt.Errorf("symbolic link %q: %w", Clip(name), ErrTooManyLinks)
			}
			target := b.target(next)
			if strings.HasPrefix(target, "/") {
				dir = 0
			}
			path = join(target, tail)
		default:
			return 0, "", fmt.Errorf("%q is a %v: %w", Clip(b.path(dir, name)), k, ErrNotDirectory)
		}
	}
	return dir, "", nil
}

// join puts a path behind a link target.
func join(target, tail string) string {
	if tail == "" {
		return target
	}
	return target + "/" + tail
}

// up returns the parent of a directory; the root is its own.
func (b *Builder) up(dir uint32) uint32 { return b.inodes.At(int(dir)).aux }

// target returns the target of symbolic link i.
func (b *Builder) target(i uint32) string {
	n := b.inodes.At(int(i))
	return string(b.targets.Get(int(n.ref), int(n.size)))
}

// step looks a name up. KindUnset means that nothing is there, or a whiteout.
func (b *Builder) step(dir uint32, name string) (uint32, Kind, error) {
	if err := checkName(name); err != nil {
		return 0, KindUnset, err
	}
	e, ok := b.find(dir, name)
	if !ok {
		return 0, KindUnset, nil
	}
	i := b.entries.At(int(e)).inode
	if i == none {
		return 0, KindUnset, nil
	}
	return i, b.inodes.At(int(i)).kind, nil
}

// path returns the path of a name in a directory.
func (b *Builder) path(dir uint32, name string) string {
	parts := []string{name}
	for dir != 0 {
		d := b.inodes.At(int(dir))
		parts = append(parts, string(b.nameOf(b.entries.At(int(d.ref)))))
		dir = d.aux
	}
	for i, j := 0, len(parts)-1; i < j; i, j = i+1, j-1 {
		parts[i], parts[j] = parts[j], parts[i]
	}
	return strings.Join(parts, "/")
}
