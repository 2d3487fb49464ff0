package layers

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/index/tree"
	"github.com/layerfs/layerfs/internal/blob"
)

// What a thing that Why explains is.
const (
	ThingImage    = "image"
	ThingLayer    = "layer"
	ThingManifest = "manifest"
	ThingConfig   = "config"
	ThingBlob     = "compressed layer"
	ThingContent  = "file content"
	ThingUnused   = "unused" // in the store, and nothing needs it
)

// A Why says what a digest is in the store and what keeps it there.
type Why struct {
	Digest digest.Digest `json:"digest"`
	Thing  string        `json:"thing"`
	// Images need it, with their names.
	Images []ImageRef `json:"images"`
	// Layers hold it, when it is the content of a file or a compressed layer.
	Layers []Holder `json:"layers,omitempty"`
	// Processes have it open at this moment; collection leaves it alone for them.
	Processes []Process `json:"processes,omitempty"`
	// Others are the other reasons, such as containers and leases.
	Others []string `json:"others,omitempty"`
}

// Kept reports whether a collection would leave it alone.
func (w *Why) Kept() bool {
	return len(w.Images)+len(w.Processes)+len(w.Others) > 0
}

// A Holder is a layer that holds the content of a file.
type Holder struct {
	Layer DiffID `json:"layer"`
	// Paths are some of the files, at the most 10.
	Paths []string `json:"paths,omitempty"`
}

// A Process has something open.
type Process struct {
	PID     int    `json:"pid"`
	Command string `json:"command"`
}

// Why says what keeps a layer, a manifest, a config, a compressed layer or the
// content of a file. What may be an image's name or ID, a DiffID, a digest, or an
// abbreviation of an ID or a DiffID. It returns an error that wraps fs.ErrNotExist
// when the store has nothing of that digest.
func (s *Store) Why(ctx context.Context, what string) (*Why, error) {
	a := &asker{s: s}
	err := s.index.View(ctx, func(tx *index.Tx) error { return a.ask(tx, what) })
	if err != nil {
		return nil, err
	}
	if a.out == nil {
		if err := a.content(ctx, what); err != nil {
			return nil, err
		}
	}
	if a.out == nil {
		return nil, fmt.Errorf("%q is no image, layer, blob or file content of the store: %w", what, fs.ErrNotExist)
	}
	if err := a.others(ctx); err != nil {
		return nil, err
	}
	for _, d := range a.stack {
		for _, p := range holders(filepath.Join(s.layerDir(d), "tree")) {
			if !slices.Contains(a.out.Processes, p) {
				a.out.Processes = append(a.out.Processes, p)
			}
		}
	}
	return a.out, nil
}

// An asker answers one Why.
type asker struct {
	s      *Store
	out    *Why
	stack  []DiffID // what processes may have open
	layers []DiffID // all of the store
	users  map[digest.Digest][]ImageRef
}

// ask looks in the index.
func (a *asker) ask(tx *index.Tx, what string) error {
	a.out, a.stack, a.layers = nil, nil, nil
	refs, err := imageRefs(tx)
	if err != nil {
		return err
	}
	a.users = map[digest.Digest][]ImageRef{}
	users, err := layerUsers(tx)
	if err != nil {
		return err
	}
	for d, ids := range users {
		for _, id := range ids {
			a.users[d] = append(a.users[d], refs[id])
		}
	}
	img, _, err := resolve(tx, what)
	switch {
	case err == nil:
		a.out = &Why{Digest: img.ID, Thing: ThingImage, Images: []ImageRef{refs[img.ID]}}
		for _, d := range img.Layers {
			a.stack = append(a.stack, DiffID(d))
		}
		return nil
	case !errors.Is(err, ErrImageUnknown) && !errors.Is(err, ErrInvalidName):
		return err
	}
	hex := strings.TrimPrefix(what, "sha256:")
	l, err := resolveLayer(tx, hex)
	if err == nil {
		a.layer(l, hex)
		return nil
	}
	if !errors.Is(err, index.ErrNotFound) {
		return err
	}
	if err := a.blob(tx, hex, refs); err != nil {
		return err
	}
	return tx.EachRawLayer(func(l index.Raw) error {
		a.layers = append(a.layers, DiffID(l.Digest()))
		return nil
	})
}

// layer answers for a layer or one of its compressed forms.
func (a *asker) layer(l index.Layer, hex string) {
	a.out = &Why{Digest: l.DiffID, Thing: ThingLayer, Images: a.users[l.DiffID]}
	a.stack = []DiffID{DiffID(l.DiffID)}
	for _, b := range l.Blobs {
		if b.Digest.Encoded() == hex && b.Digest != l.DiffID {
			a.out.Digest, a.out.Thing, a.out.Layers = b.Digest, ThingBlob, []Holder{{Layer: DiffID(l.DiffID)}}
		}
	}
}

// blob answers for a manifest of an image, or a file among the blobs that nothing
// names. A config is an image, and was found as one.
func (a *asker) blob(tx *index.Tx, hex string, refs map[digest.Digest]ImageRef) error {
	if len(hex) != 64 || !isHex(hex) {
		return nil
	}
	d := digest.NewDigestFromEncoded(digest.SHA256, hex)
	found := &Why{Digest: d, Thing: ThingUnused}
	err := tx.EachImage(func(img index.Image) error {
		for _, m := range img.Manifests {
			if m.Descriptor.Digest == d {
				found.Thing = ThingManifest
				found.Images = append(found.Images, refs[img.ID])
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if found.Thing == ThingUnused {
		f, err := a.s.blobs.OpenBlob(sumOf(d))
		if errors.Is(err, blob.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		f.Close()
	}
	a.out = found
	return nil
}

// content looks for the digest among the contents of files.
func (a *asker) content(ctx context.Context, what string) error {
	d, err := parseDigest("sha256:" + strings.TrimPrefix(what, "sha256:"))
	if err != nil {
		return fmt.Errorf("%q is no image, layer or digest of the store: %w", what, fs.ErrNotExist)
	}
	sum := sumOf(d)
	for _, id := range a.layers {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := a.holder(id, sum); err != nil {
			return err
		}
	}
	if a.out == nil {
		return a.unused(ctx, d)
	}
	a.out.Digest = d
	return nil
}

// holder looks for a content in one layer.
func (a *asker) holder(id DiffID, sum tree.Sum) (err error) {
	l, err := a.s.OpenLayer(id)
	if errors.Is(err, ErrLayerUnknown) {
		return nil // removed since the index was read
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if _, ok, err := l.tree.BodyBySum(sum); err != nil || !ok {
		return treeError(err)
	}
	h := Holder{Layer: id}
	err = walkTree(l.tree, 0, "", func(path string, e tree.Dirent) error {
		if e.Kind != tree.KindRegular {
			return nil
		}
		b, ok, err := l.tree.Body(e.Ino)
		if err != nil || !ok || b.Sum != sum {
			return treeError(err)
		}
		h.Paths = append(h.Paths, "/"+path)
		if len(h.Paths) == maxCandidates {
			return errStop
		}
		return nil
	})
	if err != nil && !errors.Is(err, errStop) {
		return err
	}
	if a.out == nil {
		a.out = &Why{Thing: ThingContent}
	}
	a.out.Layers = append(a.out.Layers, h)
	a.stack = append(a.stack, id)
	for _, ref := range a.users[digest.Digest(id)] {
		if !slices.ContainsFunc(a.out.Images, func(r ImageRef) bool { return r.ID == ref.ID }) {
			a.out.Images = append(a.out.Images, ref)
		}
	}
	return nil
}

// unused answers for a content that is in the store but in no layer.
func (a *asker) unused(ctx context.Context, d digest.Digest) error {
	return a.s.index.View(ctx, func(tx *index.Tx) error {
		_, ok, err := tx.Body(sumOf(d))
		if ok {
			a.out = &Why{Digest: d, Thing: ThingUnused}
		}
		return err
	})
}

// others finds the containers, layer records and leases that keep it.
func (a *asker) others(ctx context.Context) error {
	if a.out.Thing == ThingUnused || a.out.Thing == ThingManifest {
		return nil
	}
	needs := func(stack []digest.Digest, image digest.Digest) bool {
		if a.out.Thing == ThingImage {
			return image == a.out.Digest
		}
		return slices.ContainsFunc(a.stack, func(d DiffID) bool { return slices.Contains(stack, digest.Digest(d)) })
	}
	var found []string
	err := a.s.view(ctx, func(tx *index.Tx) error {
		found = found[:0]
		err := tx.EachContainer(func(c index.Container) error {
			if needs(c.Layers, c.Image) {
				found = append(found, "container "+strings.Join(append(slices.Clone(c.Names), c.ID[:12]), " "))
			}
			return nil
		})
		if err != nil {
			return err
		}
		return tx.EachLayerRecord(func(r index.LayerRecord) error {
			if needs(r.Layers, "") {
				found = append(found, "layer record "+strings.Join(append(slices.Clone(r.Names), r.ID[:12]), " "))
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	leases, err := a.s.Leases(ctx)
	for _, l := range leases {
		var stack []digest.Digest
		for _, d := range l.Layers {
			stack = append(stack, digest.Digest(d))
		}
		if needs(stack, "") || a.out.Thing == ThingImage && slices.Contains(l.Images, a.out.Digest) {
			found = append(found, "the lease of "+l.String())
		}
	}
	a.out.Others = append(a.out.Others, found...)
	return err
}

// holders lists the other processes that have a lock on the file, as /proc/locks
// tells; where that cannot be read there are none.
func holders(path string) []Process {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return nil
	}
	f, err := os.Open("/proc/locks")
	if err != nil {
		return nil
	}
	defer f.Close()
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	var out []Process
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// 12: FLOCK  ADVISORY  READ 4711 08:01:131 0 EOF
		words := strings.Fields(lines.Text())
		var pid int
		if len(words) < 6 || words[1] != "FLOCK" || words[5] != file {
			continue
		}
		if _, err := fmt.Sscan(words[4], &pid); err != nil || pid <= 0 || pid == os.Getpid() {
			continue
		}
		raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // it may have ended
		command := strings.TrimSpace(strings.ReplaceAll(string(raw), "\x00", " "))
		out = append(out, Process{PID: pid, Command: command})
	}
	return out
}
