package layers

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/layerfs/layerfs/index/tree"
	"github.com/layerfs/layerfs/internal/blob"
	"github.com/layerfs/layerfs/internal/disk"
	"github.com/layerfs/layerfs/internal/spool"
	"github.com/layerfs/layerfs/layers/graphroot"
	"github.com/layerfs/layerfs/tarsplit"
)

// The packs in the table of a layer of a graph root.
const (
	graphFile  = 1 // a file of the layer; the offset is that of its name in the file "names"
	graphExtra = 2 // what is no file's whole content, such as the data of a sparse file; in the file "extra"
)

// A graphBuild makes the table and the split metadata of one layer.
type graphBuild struct {
	g      *graphStore
	d      DiffID
	dir    string
	tar    *graphroot.Tar
	splits *tarsplit.Splitter
	places *spool.Map[blob.Place]

	names, extra       *bufio.Writer
	namesLen, extraLen int64
}

// build makes the table of a layer, unless another process has made it meanwhile.
func (g *graphStore) build(ctx context.Context, d DiffID) (err error) {
	g.building.Lock()
	defer g.building.Unlock()
	if _, err := os.Stat(g.layerDir(d)); err == nil {
		return nil
	}
	place, err := g.place(d)
	if err != nil {
		return err
	}
	temp, err := g.newTemp("graph")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, temp.remove()) }()
	b := &graphBuild{g: g, d: d, dir: filepath.Join(temp.path, "layer"), places: spool.NewMap[blob.Place](temp.path)}
	defer b.places.Close()
	if b.tar, err = g.root.OpenTar(place.ID); err != nil {
		return graphError(err)
	}
	defer b.tar.Close()
	if err := g.disk.Mkdir(b.dir, 0o700); err != nil {
		return err
	}
	return b.run(ctx)
}

// graphError marks what is wrong with a graph root.
func graphError(err error) error {
	if errors.Is(err, graphroot.ErrInvalid) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

// run writes the four files of the layer and puts them in place.
func (b *graphBuild) run(ctx context.Context) error {
	l := &stagedLayer{diffID: b.d, dir: b.dir, builder: tree.NewBuilder(filepath.Dir(b.dir))}
	defer l.close()
	var files []string
	for _, name := range []string{"names", "extra", "split.zst", "tree"} {
		files = append(files, filepath.Join(b.dir, name))
	}
	err := b.writing(files[0], func(f *disk.File) error {
		b.names = bufio.NewWriter(f)
		return b.writing(files[1], func(f *disk.File) error {
			b.extra = bufio.NewWriter(f)
			return b.writing(files[2], func(f *disk.File) error { return b.split(l, f) })
		})
	})
	if err != nil {
		return err
	}
	var stats tree.Stats
	err = b.writing(files[3], func(f *disk.File) (err error) {
		stats, err = l.builder.Finish(f, b.placesOf)
		return err
	})
	if err != nil {
		return err
	}
	meta := diskUsage(b.dir)
	if err := b.g.disk.SyncMany(filepath.Dir(b.dir), slices.Values(append(files, b.dir))); err != nil {
		return err
	}
	if err := (&importer{s: b.g.Store}).place(l); err != nil {
		return err
	}
	return b.g.describe(ctx, l.record(stats, meta))
}

// writing calls fn with a new file and closes it.
func (b *graphBuild) writing(path string, fn func(f *disk.File) error) error {
	f, err := b.g.disk.Create(path, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(fn(f), f.Close())
}

// split takes the tar apart and checks its digest.
func (b *graphBuild) split(l *stagedLayer, f *disk.File) error {
	sum := sha256.New()
	meta := tarsplit.NewWriter(f)
	counted := &countReader{r: io.TeeReader(b.tar, sum)}
	b.splits = tarsplit.NewSplitter(counted, meta)
	sp := splitting{b.splits, l.builder, b, nil}
	if err := sp.members(); err != nil {
		return graphError(err)
	}
	if err := errors.Join(meta.Close(), b.names.Flush(), b.extra.Flush()); err != nil {
		return err
	}
	l.size = counted.n
	got := DiffID(digest.NewDigest(digest.SHA256, sum))
	if hidden := b.tar.Unreadable(); got != b.d && len(hidden) == 0 {
		return fmt.Errorf("%w: put together it has the digest %s: files below %s have been changed", ErrDamaged, got, b.g.Root())
	}
	return l.builder.LowerLinks(func(_ int, path, target string) error {
		return fmt.Errorf("%w: entry %q is a hard link to %q, which is not in the layer", ErrInvalidLayer, tree.Clip(path), tree.Clip(target))
	})
}

// Put implements bodyPutter: it notes where the body lies. What is not the whole
// content of a file is in the tar-split file alone and is copied.
func (b *graphBuild) Put(r io.Reader, size int64) (sum blob.Sum, err error) {
	offset := b.splits.Offset()
	f, ok := b.tar.File(offset)
	hash := sha256.New()
	place := blob.Place{Pack: graphFile, Offset: b.namesLen}
	if ok && f.Size == size {
		n, werr := b.names.WriteString(f.Name + "\x00")
		b.namesLen += int64(n)
		_, err = io.Copy(hash, r)
		err = errors.Join(err, werr)
	} else {
		place = blob.Place{Pack: graphExtra, Offset: b.extraLen}
		_, err = io.Copy(io.MultiWriter(hash, b.extra), r)
		b.extraLen += size
	}
	if err != nil {
		return sum, err
	}
	if f.Unreadable { // nobody knows its digest; it gets one of its own
		fmt.Fprintf(hash, "%s %d", b.d, offset)
	}
	sum = blob.Sum(hash.Sum(nil))
	if _, known := b.places.Get(sum); known {
		return sum, nil
	}
	return sum, b.places.Put(sum, place)
}

// placesOf tells the table where its bodies lie.
func (b *graphBuild) placesOf(sums []tree.Sum) ([]tree.Place, error) {
	out := make([]tree.Place, len(sums))
	for i, sum := range sums {
		p, ok := b.places.Get(sum)
		if !ok {
			return nil, fmt.Errorf("%w: body %x has no place", ErrDamaged, sum)
		}
		out[i] = tree.Place{Pack: uint64(p.Pack), Offset: p.Offset}
	}
	return out, nil
}

// A countReader counts what is read.
type countReader struct {
	r io.Reader
	n int64
}

func (c *countReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// graphContents reads the bodies of one layer from the files of a graph root.
type graphContents struct {
	root         *graphroot.Root
	layer        string
	names, extra *os.File

	mu   sync.Mutex // guards the rest
	last *os.File   // the file that was read last
	at   int64      // the place of its name
}

// contents opens what the bodies of a layer are read from.
func (g *graphStore) contents(d DiffID) (*graphContents, error) {
	place, err := g.place(d)
	if err != nil {
		return nil, err
	}
	c := &graphContents{root: g.root, layer: place.ID, at: -1}
	if c.names, err = os.Open(filepath.Join(g.layerDir(d), "names")); err != nil {
		return nil, err
	}
	if c.extra, err = os.Open(filepath.Join(g.layerDir(d), "extra")); err != nil {
		return nil, errors.Join(err, c.names.Close())
	}
	return c, nil
}

func (c *graphContents) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last != nil {
		c.last.Close()
		c.last = nil
	}
	return errors.Join(c.names.Close(), c.extra.Close())
}

// BodyAt implements contents.
func (c *graphContents) BodyAt(_ blob.Sum, size int64, pl blob.Place, p []byte, off int64) (int, error) {
	if off >= size {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), size-off)]
	if pl.Pack == graphExtra {
		return c.extra.ReadAt(p, pl.Offset+off)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.openLocked(pl.Offset); err != nil {
		return 0, err
	}
	return c.last.ReadAt(p, off)
}

// openLocked makes last the file whose name is at a place. Preconditions: c.mu is
// held.
func (c *graphContents) openLocked(at int64) error {
	if c.last != nil && c.at == at {
		return nil
	}
	name, err := c.nameAt(at)
	if err != nil {
		return err
	}
	f, err := c.root.OpenFile(c.layer, name)
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w: only root, or podman unshare, may read it", err)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if c.last != nil {
		c.last.Close()
	}
	c.last, c.at = f, at
	return nil
}

// nameAt reads the name at a place of the file of names.
func (c *graphContents) nameAt(at int64) (string, error) {
	var name strings.Builder
	var buf [256]byte
	for name.Len() < 1<<20 {
		n, err := c.names.ReadAt(buf[:], at)
		if i := bytes.IndexByte(buf[:n], 0); i >= 0 {
			name.Write(buf[:i])
			return name.String(), nil
		}
		if err != nil {
			break
		}
		name.Write(buf[:n])
		at += int64(n)
	}
	return "", fmt.Errorf("%w: layer of %s: no name at %d in its cache", ErrDamaged, c.root.Dir(), at)
}

// PackBytes implements contents: nothing is in memory.
func (c *graphContents) PackBytes(blob.Place, int64, int64) ([]byte, error) {
	return nil, errors.ErrUnsupported
}

// OpenObject implements contents: nothing is found by its digest.
func (c *graphContents) OpenObject(blob.Sum) (*os.File, error) { return nil, errors.ErrUnsupported }
