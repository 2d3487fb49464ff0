package layers

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/index/tree"
)

// CheckOptions change what is checked; nil means everything.
type CheckOptions struct {
	// Fast leaves out what needs reading the contents of all files.
	Fast bool
	// Progress is called after each layer with the bytes of tar that have been
	// checked, of total.
	Progress func(done, total int64)
}

// A Problem is one thing that is wrong with the store.
type Problem struct {
	// What is damaged: "image sha256:…", "layer sha256:…", "name …".
	What string `json:"what"`
	// Path is the file in the layer whose content is damaged, if it is that.
	Path string `json:"path,omitempty"`
	// Why says what was found.
	Why string `json:"why"`
	// Images are the IDs of the images that show the damage.
	Images []digest.Digest `json:"images"`
}

func (p Problem) String() string {
	if p.Path != "" {
		return fmt.Sprintf("%s: %s: %s", p.What, p.Path, p.Why)
	}
	return p.What + ": " + p.Why
}

// A CheckReport is what Check found; a sound store has no problems.
type CheckReport struct {
	Problems []Problem `json:"problems"`
	Images   int       `json:"images"`
	Layers   int       `json:"layers"`
	Bodies   int64     `json:"bodies"`
	Bytes    int64     `json:"bytes"` // of tar that was put together and hashed
}

// A checker gathers problems; an error of Check itself means that it could not go
// on, not that something is damaged.
type checker struct {
	s      *Store
	o      CheckOptions
	report CheckReport
	users  map[digest.Digest][]digest.Digest
	layers []index.Layer
	images []index.Image
	total  int64
}

// Check verifies the records, the trees, the split metadata and, unless o.Fast,
// every layer's tar against its DiffID, which covers every body. It changes
// nothing and may run while the store is used.
func (s *Store) Check(ctx context.Context, o *CheckOptions) (*CheckReport, error) {
	c := &checker{s: s}
	if o != nil {
		c.o = *o
	}
	if err := c.records(ctx); err != nil {
		return nil, err
	}
	for _, img := range c.images {
		c.image(img)
	}
	for _, l := range c.layers {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := c.layer(ctx, l); err != nil {
			return nil, err
		}
		if c.o.Progress != nil {
			c.o.Progress(c.report.Bytes, c.total)
		}
	}
	if err := c.forms(ctx); err != nil {
		return nil, err
	}
	return &c.report, nil
}

func (c *checker) problem(what, path, why string, images []digest.Digest) {
	c.report.Problems = append(c.report.Problems, Problem{What: what, Path: path, Why: why, Images: images})
}

// records reads all records and checks that they refer to each other.
func (c *checker) records(ctx context.Context) error {
	return c.s.index.View(ctx, func(tx *index.Tx) error {
		c.layers, c.images = nil, nil
		known := map[digest.Digest]bool{}
		err := tx.EachLayer(func(l index.Layer) error {
			known[l.DiffID] = true
			c.layers = append(c.layers, l)
			c.total += l.Size
			return nil
		})
		if err != nil {
			return err
		}
		if c.users, err = layerUsers(tx); err != nil {
			return err
		}
		ids := map[digest.Digest]bool{}
		err = tx.EachImage(func(img index.Image) error {
			ids[img.ID] = true
			c.images = append(c.images, img)
			for _, d := range img.Layers {
				if !known[d] {
					c.problem("image "+string(img.ID), "", fmt.Sprintf("its layer %s is not in the index; load the image again", d), []digest.Digest{img.ID})
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		return tx.EachName(func(n index.Name) error {
			if !ids[n.Image] {
				c.problem("name "+n.Name, "", fmt.Sprintf("its image %s is not in the index; remove the name", n.Image), nil)
			}
			return nil
		})
	})
}

func (c *checker) image(img index.Image) {
	c.report.Images++
	what := "image " + string(img.ID)
	blobs := []digest.Digest{img.Config.Digest}
	for _, m := range img.Manifests {
		blobs = append(blobs, m.Descriptor.Digest)
	}
	for _, d := range blobs {
		if _, err := c.s.Blob(d); err != nil {
			c.problem(what, "", err.Error(), []digest.Digest{img.ID})
		}
	}
}

func (c *checker) layer(ctx context.Context, rec index.Layer) error {
	c.report.Layers++
	d := DiffID(rec.DiffID)
	what, images := "layer "+string(d), c.users[rec.DiffID]
	l, err := c.s.OpenLayer(d)
	if err != nil {
		if _, gone := c.s.Layer(ctx, string(d)); gone != nil {
			return nil // removed since the records were read
		}
		c.problem(what, "", err.Error()+"; load its image again", images)
		return nil
	}
	defer l.Close()
	if rec.Additional != "" {
		return nil // its own store is the one to check it
	}
	if err := l.tree.Verify(); err != nil {
		c.problem(what, "", err.Error(), images)
		return nil
	}
	tar, err := l.Tar()
	if err == nil {
		err = tar.Verify()
	}
	if err != nil {
		c.problem(what, "", err.Error(), images)
		return nil
	}
	if tar.Size() != rec.Size {
		c.problem(what, "", fmt.Sprintf("its split metadata describes %d bytes of tar, but its record says %d", tar.Size(), rec.Size), images)
	}
	if c.o.Fast {
		return c.present(l, what, images)
	}
	return c.content(ctx, l, what, images)
}

// present checks that every body has a place with room for it.
func (c *checker) present(l *Layer, what string, images []digest.Digest) error {
	bad := map[tree.Sum]string{}
	err := l.tree.EachBody(func(b tree.Body) error {
		c.report.Bodies++
		var last [1]byte
		if _, err := c.s.blobs.BodyAt(b.Sum, b.Size, place(b), last[:], b.Size-1); err != nil && err != io.EOF {
			bad[b.Sum] = err.Error()
		}
		return nil
	})
	if err != nil {
		return err
	}
	return c.name(l, bad, what, images)
}

// content puts the tar together and compares its digest; only when that fails are
// the bodies looked at one by one.
func (c *checker) content(ctx context.Context, l *Layer, what string, images []digest.Digest) error {
	hash := sha256.New()
	n, err := l.tar.WriteTo(&ctxWriter{ctx, hash})
	c.report.Bytes += n
	c.report.Bodies += l.tree.Stats().Bodies
	if ctx.Err() != nil {
		return ctx.Err()
	}
	got := digest.NewDigest(digest.SHA256, hash)
	if err == nil && got == digest.Digest(l.DiffID) {
		return nil
	}
	bad := map[tree.Sum]string{}
	werr := l.tree.EachBody(func(b tree.Body) error {
		if err := c.s.blobs.VerifyBody(b.Sum, b.Size, place(b)); err != nil {
			bad[b.Sum] = err.Error()
		}
		return ctx.Err()
	})
	if werr != nil {
		return werr
	}
	if len(bad) == 0 {
		if err == nil {
			err = fmt.Errorf("its tar comes out with the digest %s", got)
		}
		c.problem(what, "", err.Error()+"; load its image again", images)
		return nil
	}
	return c.name(l, bad, what, images)
}

// name reports the bad bodies by the paths of the files that have them.
func (c *checker) name(l *Layer, bad map[tree.Sum]string, what string, images []digest.Digest) error {
	if len(bad) == 0 {
		return nil
	}
	named := map[tree.Sum]bool{}
	err := walkTree(l.tree, 0, "", func(path string, e tree.Dirent) error {
		if e.Kind != tree.KindRegular {
			return nil
		}
		b, ok, err := l.tree.Body(e.Ino)
		if err != nil || !ok {
			return err
		}
		if why, isBad := bad[b.Sum]; isBad {
			named[b.Sum] = true
			c.problem(what, path, why, images)
		}
		return nil
	})
	for sum, why := range bad {
		if !named[sum] {
			c.problem(what, "", fmt.Sprintf("body %x: %s", sum, why), images)
		}
	}
	return err
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
