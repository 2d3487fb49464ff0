package tree

import "fmt"

// Drop takes a directory out of the layer, and all below it, as if it had never
// been there. Files below it that have other names keep those. What is no
// directory is left alone.
func (b *Builder) Drop(dir string) error {
	if err := b.start(); err != nil {
		return err
	}
	base, name := splitPath(dir)
	parent, err := b.directory(base)
	if err != nil {
		return fmt.Errorf("directory %q: %w", Clip(dir), err)
	}
	e, ok := b.find(parent, name)
	if !ok {
		return nil
	}
	at := b.entries.At(int(e))
	if at.inode == none || b.inodes.At(int(at.inode)).kind != KindDirectory {
		return nil
	}
	// The name moves into the directory itself, which nothing leads to any more.
	at.parent, at.inode = at.inode, none
	b.lastOK = false
	return nil
}

// Whiteout adds a whiteout: the name is deleted in the layers below.
func (b *Builder) Whiteout(path string) error {
	if err := b.start(); err != nil {
		return err
	}
	parent, name, err := b.place(path)
	if err == nil {
		err = b.whiteout(parent, name)
	}
	if err != nil {
		return fmt.Errorf("whiteout of %q: %w", Clip(path), err)
	}
	return nil
}

// whiteout marks a name as deleted below.
func (b *Builder) whiteout(parent uint32, name string) error {
	e, ok := b.find(parent, name)
	if !ok {
		var err error
		if e, err = b.newEntry(parent, name, none); err != nil {
			return err
		}
	}
	b.entries.At(int(e)).white = true
	return nil
}

// Opaque makes a directory hide what is below it, and makes the directory when it
// is not there.
func (b *Builder) Opaque(dir string) error {
	if err := b.start(); err != nil {
		return err
	}
	i, err := b.directory(dir)
	if err != nil {
		return fmt.Errorf("opaque directory %q: %w", Clip(dir), err)
	}
	b.inodes.At(int(i)).flags |= flagOpaque
	return nil
}
