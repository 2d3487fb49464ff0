package layers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/internal/blob"
)

// CheckOptions change what is checked; nil means everything but Deep.
type CheckOptions struct {
	// Fast leaves out what needs reading the contents of all files.
	Fast bool
	// Deep also puts every layer's tar together and compares it with its DiffID: it
	// finds what was wrong before it was written, at the cost of reading all twice.
	Deep bool
	// Progress is called now and then with the bytes that have been read, of total.
	Progress func(done, total int64)
}

// A Problem is one thing that is wrong with the store.
type Problem struct {
	// What is damaged: "image sha256:…", "layer sha256:…", "index", "name …".
	What string `json:"what"`
	// Path is the file in the layer whose content is damaged, if it is that.
	Path string `json:"path,omitempty"`
	// Why says what was found.
	Why string `json:"why"`
	// Images are the images that show the damage.
	Images []ImageRef `json:"images"`
	// State says what a repair has done about it; empty when nothing was tried.
	State string `json:"state,omitempty"`

	part  part // for the repair
	layer DiffID
	body  blob.Placed
	blob  digest.Digest

	container string
}

// What a repair can do about a problem.
const (
	StateRepaired    = "repaired"
	StateQuarantined = "quarantined" // moved aside or marked; the rest goes on working
	StateLeft        = "left"        // there is nothing to repair it from, and it does no harm
)

// A part is a kind of file of the store.
type part int

const (
	partOther part = iota
	partFormat
	partIndex
	partTree
	partSplit
	partBody
	partBlob // manifest, config, index document, big data
	partForm // compressed layer
	partPlace
	partContainer
)

func (p Problem) String() string {
	text := p.What + ": "
	if p.Path != "" {
		text += p.Path + ": "
	}
	text += p.Why
	if p.State != "" {
		text += " (" + p.State + ")"
	}
	return text
}

// A CheckReport is what Check found; a sound store has no problems.
type CheckReport struct {
	Problems []Problem `json:"problems"`
	Images   int       `json:"images"`
	Layers   int       `json:"layers"`
	Bodies   int64     `json:"bodies"`
	Bytes    int64     `json:"bytes"` // of file contents, and with Deep of tars, that were read
}

// A checker gathers problems; an error of Check itself means that it could not go
// on, not that something is damaged.
type checker struct {
	s      *Store
	o      CheckOptions
	report CheckReport
	refs   map[digest.Digest]ImageRef
	users  map[digest.Digest][]digest.Digest
	layers []index.Layer
	images []index.Image
	data   []ownedData
	boxes  []index.Container
	bad    map[blob.Sum]badBody // found so far
	total  int64
}

type ownedData struct {
	owner  index.Owner
	key    string
	digest digest.Digest
}

// Check verifies the index, the records, the trees, the split metadata, manifests,
// configs and big data, and unless o.Fast compressed layers and every body against
// its digest. It changes nothing and may run while the store is used: what is
// removed meanwhile is no damage.
func (s *Store) Check(ctx context.Context, o *CheckOptions) (*CheckReport, error) {
	c := &checker{s: s, bad: map[blob.Sum]badBody{}}
	if o != nil {
		c.o = *o
	}
	if err := c.run(ctx); err != nil {
		return nil, err
	}
	return &c.report, nil
}

func (c *checker) run(ctx context.Context) error {
	c.format()
	sound, err := c.index(ctx)
	if err != nil {
		return err
	}
	if err := c.records(ctx); err != nil {
		if !sound && errors.Is(err, ErrDamaged) || errors.Is(err, index.ErrDamaged) {
			return c.unindexed(ctx)
		}
		return err
	}
	for _, img := range c.images {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.image(ctx, img); err != nil {
			return err
		}
	}
	for _, d := range c.data {
		if err := c.bigData(ctx, d); err != nil {
			return err
		}
	}
	for batch := range slices.Chunk(c.layers, batchLayers) {
		if err := c.batch(ctx, batch); err != nil {
			return err
		}
	}
	if err := c.forms(ctx); err != nil {
		return err
	}
	return c.containers(ctx)
}

// problem notes a problem that touches images.
func (c *checker) problem(what, path, why string, images []digest.Digest) *Problem {
	p := Problem{What: what, Path: path, Why: why, Images: []ImageRef{}}
	for _, id := range images {
		ref, ok := c.refs[id]
		if !ok {
			ref = ImageRef{ID: id, Names: []string{}}
		}
		p.Images = append(p.Images, ref)
	}
	c.report.Problems = append(c.report.Problems, p)
	return &c.report.Problems[len(c.report.Problems)-1]
}

func (c *checker) format() {
	if err := checkFormat(c.s.root); err != nil {
		c.problem("format", "", err.Error(), nil).part = partFormat
	}
}

// index verifies the index itself.
func (c *checker) index(ctx context.Context) (sound bool, err error) {
	problems, err := c.s.index.DB.Verify(ctx)
	if lost := c.s.indexLost(); lost != nil {
		problems = append(problems, lost)
	}
	for _, p := range problems {
		c.problem("index", "", p.Error(), nil).part = partIndex
	}
	return len(problems) == 0, err
}

// unindexed checks the layers' own files when there is no index that could say
// which layers there should be.
func (c *checker) unindexed(ctx context.Context) error {
	if len(c.report.Problems) == 0 {
		c.problem("index", "", "it cannot be read; run `layerfs check --repair`", nil).part = partIndex
	}
	entries, err := os.ReadDir(filepath.Join(c.s.root, "layers"))
	if err != nil {
		return err
	}
	c.layers = nil
	for _, e := range entries {
		d := digest.NewDigestFromEncoded(digest.SHA256, e.Name())
		if d.Validate() == nil {
			c.layers = append(c.layers, index.Layer{DiffID: d, Size: -1})
		}
	}
	for batch := range slices.Chunk(c.layers, batchLayers) {
		if err := c.batch(ctx, batch); err != nil {
			return err
		}
	}
	return nil
}

// records reads all records and checks that they refer to each other.
func (c *checker) records(ctx context.Context) error {
	return c.s.view(ctx, func(tx *index.Tx) (err error) {
		c.layers, c.images, c.data, c.boxes, c.total = nil, nil, nil, nil, 0
		if c.refs, err = imageRefs(tx); err != nil {
			return err
		}
		if c.users, err = layerUsers(tx); err != nil {
			return err
		}
		known := map[digest.Digest]bool{}
		err = tx.EachLayer(func(l index.Layer) error {
			known[l.DiffID] = true
			if l.Additional == "" { // what is borrowed is checked where it lies
				c.layers = append(c.layers, l)
				c.total += l.BodyBytes
			}
			return nil
		})
		if err != nil {
			return err
		}
		if err := c.imageRecords(tx, known); err != nil {
			return err
		}
		err = tx.EachOwnedData(func(o index.Owner, key []byte, d index.Data) error {
			c.data = append(c.data, ownedData{o, string(key), d.Digest})
			return nil
		})
		if err != nil {
			return err
		}
		return tx.EachContainer(func(b index.Container) error {
			c.boxes = append(c.boxes, b)
			for _, d := range b.Layers {
				if !known[d] {
					c.problem("container "+b.ID, "", fmt.Sprintf("its layer %s is not in the index; load its image again", d), nil)
				}
			}
			return nil
		})
	})
}

func (c *checker) imageRecords(tx *index.Tx, known map[digest.Digest]bool) error {
	ids := map[digest.Digest]bool{}
	err := tx.EachImage(func(img index.Image) error {
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
}

// image verifies the documents of an image.
func (c *checker) image(ctx context.Context, img index.Image) error {
	c.report.Images++
	documents := []struct {
		kind   string
		digest digest.Digest
	}{{"config", img.Config.Digest}}
	for _, m := range img.Manifests {
		documents = append(documents, struct {
			kind   string
			digest digest.Digest
		}{"manifest", m.Descriptor.Digest})
		for _, x := range m.Indexes {
			documents = append(documents, struct {
				kind   string
				digest digest.Digest
			}{"index document", x.Digest})
		}
		for _, l := range m.Layers {
			if img.IsArtifact() && !c.o.Fast {
				documents = append(documents, struct {
					kind   string
					digest digest.Digest
				}{"blob", l.Digest})
			}
		}
	}
	for _, d := range documents {
		if d.digest == "" {
			continue
		}
		err := c.s.blobs.VerifyBlob(sumOf(d.digest))
		if err == nil || !c.hasImage(ctx, img.ID) {
			continue
		}
		p := c.problem("image "+string(img.ID), "", fmt.Sprintf("%s %s: %v", d.kind, d.digest, plainDamage(err)), []digest.Digest{img.ID})
		p.part, p.blob = partBlob, d.digest
	}
	return nil
}

// hasImage reports whether the image is still there: what is removed while it is
// checked is not damaged.
func (c *checker) hasImage(ctx context.Context, id digest.Digest) bool {
	err := c.s.view(ctx, func(tx *index.Tx) error {
		_, err := tx.Image(id)
		return err
	})
	return err == nil
}

func (c *checker) bigData(ctx context.Context, d ownedData) error {
	if c.o.Fast {
		if _, err := c.s.blobs.BlobSize(sumOf(d.digest)); err == nil {
			return nil
		}
	}
	err := c.s.blobs.VerifyBlob(sumOf(d.digest))
	if err == nil {
		return ctx.Err()
	}
	still := c.s.view(ctx, func(tx *index.Tx) error {
		now, err := tx.Data(d.owner, []byte(d.key))
		if err == nil && now.Digest != d.digest {
			return index.ErrNotFound
		}
		return err
	})
	if still != nil {
		return ctx.Err() // removed or replaced since
	}
	kinds := map[index.Kind]string{index.KindImage: "image", index.KindLayer: "layer record", index.KindContainer: "container"}
	p := c.problem(fmt.Sprintf("%s %s", kinds[d.owner.Kind], d.owner.ID), "", fmt.Sprintf("big data %q: %v; set it again", d.key, plainDamage(err)), nil)
	p.part, p.blob = partBlob, d.digest
	return nil
}

// containers checks that every container has its directory.
func (c *checker) containers(ctx context.Context) error {
	for _, b := range c.boxes {
		if _, err := os.Lstat(c.s.UpperPath(b.ID)); err == nil {
			continue
		}
		still := c.s.view(ctx, func(tx *index.Tx) error { _, err := tx.Container(b.ID); return err })
		if still != nil {
			continue
		}
		name := b.ID
		if len(b.Names) > 0 {
			name = b.Names[0]
		}
		p := c.problem("container "+name, "", "the directory of its writable layer is missing: what was written in it is lost; `layerfs check --repair` makes it empty", nil)
		p.part, p.container = partContainer, b.ID
	}
	return ctx.Err()
}

// plainDamage leaves out of an error what the report says anyway.
func plainDamage(err error) error {
	if errors.Is(err, blob.ErrNotFound) {
		return errors.New("it is missing")
	}
	return err
}
