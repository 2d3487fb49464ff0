package fs

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/layers"
)

// Requests in the directory of containers change records of the store. The request itself puts the change into the
// picture: the kernel knows of it when it is answered.

// edit calls fn, which changes what the directory of containers shows under names.
func (t *trees) edit(fn func(ctx context.Context) error, names ...string) syscall.Errno {
	t.mine(names, 1)
	defer t.mine(names, -1)
	ctx := context.Background()
	err := fn(ctx)
	if err == nil {
		err = t.reload(ctx)
	}
	if errors.Is(err, layers.ErrImageUnknown) {
		return syscall.ENOENT // what a new link leads to, no file that the kernel remembers
	}
	return t.errno(err)
}

// mine counts the requests that are changing names.
func (t *trees) mine(names []string, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, name := range names {
		if t.own[name] += n; t.own[name] == 0 {
			delete(t.own, name)
		}
	}
}

// createContainer makes a container of an image: target leads to its directory below images/. again says, as for the
// others, that the request comes again: it may have been carried out.
func (t *trees) createContainer(target, name string, again bool, out *fuse.EntryOut) syscall.Errno {
	image, errno := t.imageAt(target)
	if errno != 0 {
		return errno
	}
	errno = t.edit(func(ctx context.Context) error {
		_, err := t.f.store.CreateContainer(ctx, &layers.ContainerOptions{Image: image, Names: []string{name}})
		return err
	}, name)
	if errno != 0 && !(again && errno == syscall.EEXIST) {
		return errno
	}
	e, ok := t.list.Load().find(name)
	if !ok {
		return syscall.ESTALE
	}
	// The kernel asked for a symbolic link and must get one; it is not to remember it, since the name is a directory.
	node := objectNode(e.c.slot, treeAlias)
	out.NodeId, out.Generation = node, generation
	return t.ownAttr(node, &out.Attr)
}

// imageAt returns the image that a path into images/ leads to.
func (t *trees) imageAt(target string) (string, syscall.Errno) {
	_, path, ok := strings.Cut("/"+strings.Trim(target, "/")+"/", "/images/")
	path = strings.TrimSuffix(strings.TrimSuffix(path, "/"), "/rootfs")
	if !ok || path == "" {
		return "", syscall.EPERM // links in this directory lead to images
	}
	if id, ok := strings.CutPrefix(path, "by-id/"); ok {
		return id, 0
	}
	c, err := t.f.store.Catalogue(context.Background())
	if err != nil {
		return "", t.errno(err)
	}
	for _, n := range c.Names {
		if layers.PathOfName(n.Name) == path {
			return n.Name, 0
		}
	}
	return "", syscall.ENOENT
}

// renameContainer gives a container another name.
func (t *trees) renameContainer(oldName, newName string, flags uint32, again bool) syscall.Errno {
	if flags&^unix.RENAME_NOREPLACE != 0 { // which is what happens anyway
		return syscall.EINVAL
	}
	e, ok := t.list.Load().find(oldName)
	if _, done := t.list.Load().find(newName); !ok && done && again {
		return 0
	}
	if !ok {
		return syscall.ENOENT
	}
	if !e.first {
		return syscall.EPERM // a link to the first name
	}
	return t.edit(func(ctx context.Context) error {
		return t.f.store.RenameContainer(ctx, e.c.id, newName)
	}, oldName, newName)
}

// removeContainer removes a container that has no changes.
func (t *trees) removeContainer(name string, again bool) syscall.Errno {
	e, ok := t.list.Load().find(name)
	switch {
	case !ok && again:
		return 0
	case !ok:
		return syscall.ENOENT
	case !e.first:
		return syscall.ENOTDIR
	}
	if changed, err := hasEntries(t.f.store.UpperPath(e.c.id)); err != nil || changed {
		if err == nil {
			return syscall.ENOTEMPTY
		}
		return t.errno(err)
	}
	return t.edit(func(ctx context.Context) error {
		// We may be the one who has the lock; the files go when the tree is closed.
		_, err := t.f.store.DeleteContainer(ctx, e.c.id, e.c.open.Load() != nil)
		return err
	}, name)
}

// hasEntries reports whether there is something in a directory.
func hasEntries(dir string) (bool, error) {
	f, err := os.Open(dir)
	if err != nil {
		return false, err
	}
	defer f.Close() // it was only read
	names, err := f.Readdirnames(1)
	if len(names) > 0 {
		return true, nil
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return false, err
}

// reload shows the newest containers. What changed and is not being changed by requests is told the kernel by another
// goroutine, because a request may be waiting for this one.
func (t *trees) reload(ctx context.Context) error {
	c, err := t.f.store.Catalogue(ctx)
	if err != nil {
		return err
	}
	t.show(c)
	return nil
}

// show replaces the picture.
func (t *trees) show(c *layers.Catalogue) {
	t.mu.Lock()
	old := t.list.Load()
	if c.Generation == old.generation {
		t.mu.Unlock()
		return
	}
	now := t.newList(c)
	t.list.Store(now)
	changed := changedNames(old, now, t.own)
	t.mu.Unlock()
	if t.single == nil {
		go t.tell(changed, now)
	}
	go t.sweep()
}

// changedNames returns the names that lead elsewhere now, less those that own holds.
func changedNames(old, now *treeList, own map[string]int) []string {
	was := map[string]uint64{}
	for i := range old.entries {
		was[old.entries[i].name] = old.entries[i].node()
	}
	var out []string
	for i := range now.entries {
		e := &now.entries[i]
		if was[e.name] != e.node() {
			was[e.name] = 1
			continue
		}
		delete(was, e.name)
	}
	for name := range was {
		if own[name] == 0 {
			out = append(out, name)
		}
	}
	return out
}

// tell makes the kernel forget names, and what the files beside the trees say. It waits for requests in the directory.
func (t *trees) tell(names []string, l *treeList) {
	for _, name := range names {
		t.say(t.conn.NotifyEntry(rootID, name))
	}
	t.say(t.conn.NotifyInode(rootID))
	for slot := range l.bySlot {
		t.say(t.conn.NotifyInode(objectNode(slot, treeLabels)))
	}
}

func (t *trees) say(err error) {
	if err != nil {
		t.f.report("notification: " + err.Error())
	}
}

// sweep closes the trees of containers that are gone, and forgets those that the kernel has forgotten.
func (t *trees) sweep() {
	for _, c := range t.list.Load().bySlot {
		if c.gone.Load() && c.open.Load() != nil {
			t.closeTree(c)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	l := *t.list.Load()
	l.bySlot = map[uint32]*container{}
	for slot, c := range t.list.Load().bySlot {
		if !c.gone.Load() || c.lookups.Load() > 0 || c.handles.Load() > 0 {
			l.bySlot[slot] = c
		}
	}
	t.list.Store(&l)
}
