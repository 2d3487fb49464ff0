package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/layerfs/layerfs/internal/control"
	"github.com/layerfs/layerfs/layers"
)

// item names what is mounted alone: its kind and its ID, or DiffIDs; empty for the
// whole store.
func (o *mountOptions) item(ctx context.Context, st *layers.Store) (string, error) {
	switch {
	case o.container != "":
		c, err := st.Container(ctx, o.container)
		if err != nil {
			return "", err
		}
		return "container " + c.ID, nil
	case o.image != "":
		img, err := st.Image(ctx, o.image)
		if err != nil {
			return "", err
		}
		return "image " + img.ID.Encoded(), nil
	case o.layer != "":
		stack, err := st.LayerStack(ctx, o.layer)
		if err != nil {
			return "", err
		}
		if len(stack) == 1 {
			return "layer " + stack[0].Hex(), nil
		}
		return "layer " + stack[len(stack)-1].Hex() + " on " + string(layers.Chain(stack[:len(stack)-1])), nil
	}
	return "", nil
}

// mountCounted mounts something alone in a place of its own, or counts one more user
// of it, and prints the place.
func (e *env) mountCounted(ctx context.Context, o *mountOptions) (err error) {
	if o.foreground {
		return usagef("--foreground needs DIR")
	}
	st, err := e.viewStore()
	if err != nil {
		return err
	}
	item, err := o.item(ctx, st)
	if err = errors.Join(err, st.Close()); err != nil {
		return err
	}
	reg, err := e.registry()
	if err != nil {
		return err
	}
	what := strings.Join(append([]string{st.Root(), item, o.driver, o.fs.IDMap, o.fs.UIDMap, o.fs.GIDMap}, o.fs.Extra...), "\x00")
	c, err := reg.Counted(ctx, what)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	users, err := c.Users()
	if err != nil {
		return err
	}
	if o.dir, err = c.Dir(); err != nil {
		return err
	}
	if users == 0 {
		if err := e.mount(ctx, o); err != nil {
			return errors.Join(err, os.Remove(o.dir))
		}
	}
	if err := c.SetUsers(users + 1); err != nil {
		return err
	}
	_, err = fmt.Fprintln(e.stdout, o.dir)
	return err
}

// release takes one user away from a counted mount; it reports whether others are
// left. A mount that is not counted has none.
func (o *umountOptions) release(ctx context.Context, dir string) (left bool, done func(), err error) {
	c, err := o.reg.CountedAt(ctx, dir)
	if errors.Is(err, control.ErrNotMounted) {
		return false, func() {}, nil
	}
	if err != nil {
		return false, nil, err
	}
	users, err := c.Users()
	if err == nil && users > 1 && !o.force && !o.all {
		err = c.SetUsers(users - 1)
		return true, func() {}, errors.Join(err, c.Close())
	}
	if err != nil {
		return false, nil, errors.Join(err, c.Close())
	}
	return false, func() {
		_ = os.Remove(dir) // it stays, empty, when it is still in use
		_ = c.Close()
	}, nil
}

// mountpoint finds the mount that a user means: its path, or the ID or name of what
// is mounted by count.
func (o *umountOptions) mountpoint(ctx context.Context, name string) (string, error) {
	dir := resolveMountpoint(name)
	if _, err := o.reg.Find(dir); err == nil || !errors.Is(err, control.ErrNotMounted) {
		return dir, err
	}
	if mounted, err := mountedHere(dir); err != nil || mounted {
		return dir, err
	}
	records, err := o.reg.Mounts()
	if err != nil {
		return "", err
	}
	var items []string
	if o.items != nil {
		items = o.items(ctx, name)
	}
	var found []string
	for _, r := range records {
		if r.Users > 0 && r.Store == o.store && (shows(r, name) || slices.Contains(items, r.Item)) {
			found = append(found, r.Mountpoint)
		}
	}
	switch len(found) {
	case 0:
		return dir, nil // which is told not to be mounted
	case 1:
		return found[0], nil
	}
	return "", fmt.Errorf("%w: %q is mounted on %s; name one of them", layers.ErrAmbiguous, name, strings.Join(found, ", "))
}

// shows reports whether a name or an ID is that of what a record says is mounted.
func shows(r control.Record, name string) bool {
	if name == r.Container || name == r.Image || name == r.Layer {
		return true
	}
	if want, err := layers.NormalizeName(name); err == nil && r.Image != "" {
		if got, err := layers.NormalizeName(r.Image); err == nil && got == want {
			return true
		}
	}
	_, id, _ := strings.Cut(r.Item, " ")
	hex := strings.TrimPrefix(name, "sha256:")
	return len(hex) >= 3 && strings.HasPrefix(id, hex)
}

// mountItems says what a name stands for in the store: an image, a container, a layer.
// What the store does not know may still be mounted.
func (e *env) mountItems(ctx context.Context, name string) (items []string) {
	st, err := e.readStore()
	if err != nil {
		return nil
	}
	defer st.Close()
	for _, o := range []mountOptions{{image: name}, {container: name}, {layer: name}} {
		if item, err := o.item(ctx, st); err == nil {
			items = append(items, item)
		}
	}
	return items
}
