package layers

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/index/tree"
	"github.com/layerfs/layerfs/internal/blob"
	"github.com/layerfs/layerfs/internal/spool"
)

// batchLayers is how many layers are open at once while they are checked: while a
// layer is open nothing of it is collected, so that nothing that was removed can be
// taken for damage.
const batchLayers = 256

// A badBody is a body that is damaged at a place.
type badBody struct {
	placed blob.Placed
	why    string
}

// batch checks some layers: first the tables of each, then the bodies of all of
// them, each once and in the order in which they lie on the disk.
func (c *checker) batch(ctx context.Context, batch []index.Layer) (err error) {
	b := &bodyCheck{c: c, bodies: spool.NewArray[blob.Placed](c.s.spoolDir()), seen: spool.NewMap[blob.Place](c.s.spoolDir())}
	defer b.bodies.Close()
	defer b.seen.Close()
	var open []*Layer
	defer func() {
		for _, l := range open {
			err = errors.Join(err, l.Close())
		}
	}()
	for _, rec := range batch {
		if err := ctx.Err(); err != nil {
			return err
		}
		l, err := c.tables(ctx, rec)
		if err != nil {
			return err
		}
		if l == nil {
			continue
		}
		open = append(open, l)
		if err := b.add(ctx, l); err != nil {
			return err
		}
	}
	if err := b.verify(ctx); err != nil {
		return err
	}
	for _, l := range open {
		if err := c.name(ctx, l); err != nil {
			return err
		}
		if c.o.Deep {
			if err := c.deep(ctx, l); err != nil {
				return err
			}
		}
	}
	return nil
}

// layerProblem notes a problem of a layer that is still there.
func (c *checker) layerProblem(ctx context.Context, d DiffID, kind part, err error) {
	if known, kerr := c.s.hasLayer(ctx, d); kerr == nil && !known && c.refs != nil {
		return // removed since the records were read
	}
	p := c.problem("layer "+string(d), "", err.Error(), c.users[digest.Digest(d)])
	p.part, p.layer = kind, d
}

// tables verifies the tree and the split metadata of a layer and returns it open,
// or nil when the tree cannot be used.
func (c *checker) tables(ctx context.Context, rec index.Layer) (*Layer, error) {
	c.report.Layers++
	d := DiffID(rec.DiffID)
	l, err := c.s.openOwn(d)
	if err != nil { // it may have been removed and come back
		if known, kerr := c.s.hasLayer(ctx, d); kerr == nil && known {
			l, err = c.s.openOwn(d)
		}
	}
	if err != nil {
		if errors.Is(err, ErrLayerUnknown) {
			err = fmt.Errorf("%s is missing", filepath.Join(c.s.layerDir(d), "tree"))
		}
		c.layerProblem(ctx, d, partTree, err)
		return nil, nil
	}
	if err := l.tree.Verify(); err != nil {
		c.layerProblem(ctx, d, partTree, err)
		return nil, l.Close()
	}
	tar, err := l.Tar()
	if err == nil {
		err = tar.Verify()
	}
	if err == nil {
		err = c.agree(l)
	}
	if err != nil {
		c.layerProblem(ctx, d, partSplit, err)
		return l, nil
	}
	if rec.Size >= 0 && tar.Size() != rec.Size {
		c.layerProblem(ctx, d, partIndex, fmt.Errorf("its split metadata describes %d bytes of tar, but its record says %d", tar.Size(), rec.Size))
	}
	return l, nil
}

// agree checks that the tree lists every body that the tar needs.
func (c *checker) agree(l *Layer) error {
	return l.tar.EachBody(func(sum [32]byte, size int64) error {
		b, ok, err := l.tree.BodyBySum(sum)
		if err == nil && (!ok || b.Size != size) {
			err = fmt.Errorf("%w: split metadata: the tree does not list the body %x of %d bytes", ErrDamaged, sum, size)
		}
		return err
	})
}

// A bodyCheck verifies the bodies of a batch of layers.
type bodyCheck struct {
	c      *checker
	bodies *spool.Array[blob.Placed]
	seen   *spool.Map[blob.Place]
	mu     sync.Mutex // guards c.bad
	done   atomic.Int64
}

// add notes the bodies of a layer that are not noted yet, and compares their places
// with those in the index.
func (b *bodyCheck) add(ctx context.Context, l *Layer) error {
	var chunk []blob.Placed
	flush := func() error {
		err := b.comparePlaces(ctx, l, chunk)
		chunk = chunk[:0]
		return err
	}
	err := l.tree.EachBody(func(t tree.Body) error {
		p := blob.Placed{Sum: t.Sum, Size: t.Size, Place: place(t)}
		if at, ok := b.seen.Get(t.Sum); ok && at == p.Place {
			return nil
		}
		if err := b.seen.Put(t.Sum, p.Place); err != nil {
			return err
		}
		if _, err := b.bodies.Append(p); err != nil {
			return err
		}
		if chunk = append(chunk, p); len(chunk) < sweepChunk {
			return nil
		}
		return flush()
	})
	if err != nil {
		return err
	}
	return flush()
}

// comparePlaces checks that the index names the places that the tree has: new
// layers get them from there.
func (b *bodyCheck) comparePlaces(ctx context.Context, l *Layer, chunk []blob.Placed) error {
	if b.c.refs == nil || len(chunk) == 0 {
		return nil // there is no index
	}
	wrong, err := b.misplaced(ctx, chunk)
	if err != nil || len(wrong) == 0 {
		return err
	}
	known, err := b.c.s.hasLayer(ctx, l.DiffID)
	if err != nil || !known {
		return err // it was removed and collected
	}
	if wrong, err = b.misplaced(ctx, wrong); err != nil { // or has come back since
		return err
	}
	for _, p := range wrong {
		prob := b.c.problem("index", "", fmt.Sprintf("body %x: it has another place than in layer %s", p.Sum, l.DiffID), nil)
		prob.part, prob.body = partPlace, p
	}
	return nil
}

// misplaced returns the bodies that the index does not have where they are.
func (b *bodyCheck) misplaced(ctx context.Context, list []blob.Placed) (wrong []blob.Placed, err error) {
	err = b.c.s.view(ctx, func(tx *index.Tx) error {
		wrong = nil
		for _, p := range list {
			at, ok, err := tx.Body(p.Sum)
			if err != nil {
				return err
			}
			if !ok || at.Pack != uint64(p.Place.Pack) || at.Offset != p.Place.Offset || at.Size != p.Size {
				wrong = append(wrong, p)
			}
		}
		return nil
	})
	return wrong, err
}

// verify reads all bodies, with as many readers as there are cores.
func (b *bodyCheck) verify(ctx context.Context) error {
	list := b.bodies.Slice()
	slices.SortFunc(list, func(x, y blob.Placed) int {
		return cmp.Or(cmp.Compare(x.Place.Pack, y.Place.Pack), cmp.Compare(x.Place.Offset, y.Place.Offset), bytes.Compare(x.Sum[:], y.Sum[:]))
	})
	b.c.report.Bodies += int64(len(list))
	start := b.c.report.Bytes
	g, gctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range max(1, runtime.GOMAXPROCS(0)) {
		g.Go(func() error {
			v := b.c.s.blobs.NewBodyVerifier()
			defer v.Close()
			for {
				from := int(next.Add(verifyRun)) - verifyRun
				if from >= len(list) {
					return nil
				}
				for _, p := range list[from:min(from+verifyRun, len(list))] {
					if gctx.Err() != nil {
						return gctx.Err()
					}
					b.one(v, p)
				}
				b.progress(start)
			}
		})
	}
	err := g.Wait()
	b.c.report.Bytes = start + b.done.Load()
	return err
}

// verifyRun is how many bodies a reader takes at once.
const verifyRun = 64

// one verifies one body, twice when it seems to be damaged: somebody may just be
// mending it.
func (b *bodyCheck) one(v *blob.BodyVerifier, p blob.Placed) {
	var err error
	for range 2 {
		if b.c.o.Fast {
			var last [1]byte
			if _, err = b.c.s.blobs.BodyAt(p.Sum, p.Size, p.Place, last[:], p.Size-1); err == io.EOF {
				err = nil
			}
		} else {
			err = v.Verify(p)
		}
		if err == nil {
			break
		}
		v.Close()
	}
	b.done.Add(p.Size)
	if err == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.c.bad[p.Sum] = badBody{p, err.Error()}
}

func (b *bodyCheck) progress(start int64) {
	if b.c.o.Progress == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.c.o.Progress(start+b.done.Load(), max(b.c.total, start+b.done.Load()))
}

// name reports the damaged bodies of a layer by the paths of the files that have
// them.
func (c *checker) name(ctx context.Context, l *Layer) error {
	mine := map[blob.Sum]bool{}
	for sum := range c.bad {
		if _, ok, err := l.tree.BodyBySum(sum); err != nil {
			return treeError(err)
		} else if ok {
			mine[sum] = true
		}
	}
	if len(mine) == 0 {
		return nil
	}
	if sure, err := c.reallyBad(ctx, l.DiffID, mine); err != nil || !sure {
		return err
	}
	report := func(path string, sum blob.Sum) {
		p := c.problem("layer "+string(l.DiffID), path, c.bad[sum].why, c.users[digest.Digest(l.DiffID)])
		p.part, p.layer, p.body = partBody, l.DiffID, c.bad[sum].placed
	}
	named := map[blob.Sum]bool{}
	err := walkTree(l.tree, 0, "", func(path string, e tree.Dirent) error {
		ino := e.Ino
		if e.Kind == tree.KindLink {
			copied, ok, err := l.tree.LowerCopy(uint32(e.Ino))
			if err != nil || !ok {
				return treeError(err)
			}
			ino = copied
		}
		if a, err := l.tree.Attr(ino); e.Kind == tree.KindWhiteout || err != nil || a.Kind != tree.KindRegular {
			return treeError(err)
		}
		b, ok, err := l.tree.Body(ino)
		if err != nil || !ok {
			return treeError(err)
		}
		if mine[b.Sum] {
			named[b.Sum] = true
			report(path, b.Sum)
		}
		return nil
	})
	for sum := range mine {
		if !named[sum] {
			report("", sum)
		}
	}
	return err
}

// reallyBad looks at bodies again, and leaves those in the set that are damaged for
// certain: a layer that was removed and collected, and then came back while it was
// checked, is not. What a record leads to is there when the record is.
func (c *checker) reallyBad(ctx context.Context, d DiffID, set map[blob.Sum]bool) (bool, error) {
	if c.refs == nil {
		return true, nil // there is no index
	}
	record := func() (l index.Layer, err error) {
		err = c.s.view(ctx, func(tx *index.Tx) (err error) {
			l, err = tx.Layer(digest.Digest(d))
			return err
		})
		return l, err
	}
	before, err := record()
	if errors.Is(err, index.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	v := c.s.blobs.NewBodyVerifier()
	defer v.Close()
	for sum := range set {
		if v.Verify(c.bad[sum].placed) == nil {
			delete(set, sum)
		}
	}
	after, err := record()
	if errors.Is(err, index.ErrNotFound) || err == nil && !after.Created.Equal(before.Created) {
		return false, nil
	}
	return len(set) > 0, err
}

// deep puts the tar together and compares its digest.
func (c *checker) deep(ctx context.Context, l *Layer) error {
	tar, err := l.Tar()
	if err != nil {
		return nil // it has been reported
	}
	hash := sha256.New()
	n, err := tar.WriteTo(&ctxWriter{ctx, hash})
	c.report.Bytes += n
	if ctx.Err() != nil {
		return ctx.Err()
	}
	got := digest.NewDigest(digest.SHA256, hash)
	if err == nil && got != digest.Digest(l.DiffID) {
		err = fmt.Errorf("its tar comes out with the digest %s", got)
	}
	if err != nil && !slices.ContainsFunc(c.report.Problems, func(p Problem) bool { return p.layer == l.DiffID }) {
		c.layerProblem(ctx, l.DiffID, partSplit, err)
	}
	return nil
}

// walkTree calls fn for every name of a layer's own tree, parents first.
func walkTree(t *tree.Tree, dir tree.Ino, path string, fn func(path string, e tree.Dirent) error) error {
	first, count, err := t.Dir(dir)
	if err != nil {
		return treeError(err)
	}
	for i := first; i < first+count; i++ {
		e, err := t.Dirent(i)
		if err != nil {
			return treeError(err)
		}
		child := joinPath(path, string(e.Name))
		if err := fn(child, e); err != nil {
			return err
		}
		if e.Kind == tree.KindDirectory && e.Ino > dir { // a damaged table could lead back up
			if err := walkTree(t, e.Ino, child, fn); err != nil {
				return err
			}
		}
	}
	return nil
}
