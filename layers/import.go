package layers

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/index/tree"
	"github.com/layerfs/layerfs/internal/blob"
	"github.com/layerfs/layerfs/internal/compress"
	"github.com/layerfs/layerfs/internal/disk"
	"github.com/layerfs/layerfs/tarsplit"
)

// An importer is one import: any number of layers that are split side by side,
// with one place for their bodies, and made permanent together.
type importer struct {
	s      *Store
	lease  *Lease // holds what the import relies on
	temp   *tempDir
	ingest *blob.Ingest
	limit  int64        // bytes of tar that may be read in all, 0 for no limit
	used   atomic.Int64 // of limit
	count  atomic.Int64 // layers so far
	chunk  int          // bodies that are registered in one transaction
	blobs  atomic.Int64 // compressed blobs so far
	keep   bool         // compressed blobs are kept

	healing *healing // nil when there is nothing to heal

	mu   sync.Mutex
	kept []keptBlob
}

// A stagedLayer is a layer that has been read and verified, but not published.
type stagedLayer struct {
	diffID  DiffID
	desc    ocispec.Descriptor
	builder *tree.Builder
	split   *disk.File
	dir     string // below the importer's temporary directory
	size    int64

	bodiesOnly bool // the store has the layer, only contents of files are needed
}

// newImport begins an import under a lease, which holds all that the import will
// rely on: collections go on beside it. With keep compressed blobs are kept.
func (s *Store) newImport(lease *Lease, limit int64, keep bool) (*importer, error) {
	temp, err := s.newTemp("import")
	if err != nil {
		return nil, err
	}
	im := &importer{s: s, lease: lease, temp: temp, limit: limit, keep: keep}
	if im.ingest, err = s.blobs.NewIngest(temp.path, im.knownBodies); err != nil {
		return nil, errors.Join(err, temp.remove())
	}
	if err := lease.holdPack(im.ingest.PackID()); err != nil {
		return nil, errors.Join(err, im.close(err))
	}
	return im, nil
}

// knownBodies tells the ingest which bodies the store has. From then on the import
// relies on them, or is about to put them there: before it asks it holds them.
func (im *importer) knownBodies(sums []blob.Sum) ([]bool, error) {
	if err := im.lease.holdBodies(sums); err != nil {
		return nil, err
	}
	found := make([]bool, len(sums))
	err := im.s.index.View(context.Background(), func(tx *index.Tx) error {
		for i, sum := range sums {
			_, ok, err := tx.Body(sum)
			if err != nil {
				return err
			}
			found[i] = ok
		}
		return nil
	})
	return found, err
}

// close ends the import; after an error it removes what was staged.
func (im *importer) close(failed error) error {
	var err error
	if failed != nil {
		err = im.ingest.Abort()
	}
	return errors.Join(err, im.temp.remove())
}

func (l *stagedLayer) close() {
	if l == nil {
		return
	}
	if l.builder != nil {
		_ = l.builder.Close() // nothing is lost with an unlinked spool
	}
	if l.split != nil {
		_ = l.split.Close() // published files are closed, and their errors seen, before
	}
}

// read brings one layer through the pipeline: blob, verification, inflation,
// DiffID, split. Bodies go to the ingest, names to the tree, the rest to the split
// metadata, the blob as it came to a file beside them.
func (im *importer) read(ctx context.Context, src Source, l *stagedLayer, p *progressor) error {
	return im.unpack(ctx, src, l.desc, l.diffID, p, func(tar io.Reader) error { return im.split(l, tar) })
}

// unpack reads a layer blob, verifies it and has use read the tar that is in it. A
// compressed one is kept when the import keeps blobs.
func (im *importer) unpack(ctx context.Context, src Source, desc ocispec.Descriptor, d DiffID, p *progressor, use func(tar io.Reader) error) error {
	if len(desc.URLs) > 0 && foreign(desc.MediaType) {
		return fmt.Errorf("%w: its content is not in the image but at a foreign address; copy it with a tool that fetches foreign layers first", ErrInvalidLayer)
	}
	rc, err := src.Blob(ctx, desc)
	if err != nil {
		return err
	}
	defer rc.Close()
	// An uncompressed blob is hashed once, for the DiffID, and what it holds is the
	// tar, whatever it begins with.
	plain := desc.Digest == digest.Digest(d)
	v := newVerifier(&meter{ctx: ctx, r: rc, p: p}, desc, !plain)
	keep := im.keep && !plain
	fetched := ""
	if f, ok := rc.(Fetched); ok && keep {
		fetched = f.Partial(ctx).name()
	}
	var kept *blob.Staged
	if keep && fetched == "" {
		if kept, err = im.stageBlob(); err != nil {
			return err
		}
		v.copy = kept
	}
	tar := io.NopCloser(io.Reader(v))
	if !plain {
		if tar, _, err = compress.Detect(v); err != nil {
			return errors.Join(corrupt(err), im.discard(kept))
		}
	}
	tar = compress.Pipe(tar)
	err = use(tar)
	if cerr := tar.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return errors.Join(readError(ctx, corrupt(err)), im.discard(kept))
	}
	if err := v.finish(); err != nil {
		return errors.Join(err, im.discard(kept))
	}
	if fetched != "" { // the file that has just been read needs no copy
		if kept, err = im.s.blobs.StageFile(fetched); err != nil {
			return err
		}
	}
	p.done(false)
	return im.finishBlob(kept, desc.Digest)
}

func foreign(mediaType string) bool {
	switch mediaType {
	case MediaTypeDockerForeign, "application/vnd.oci.image.layer.nondistributable.v1.tar",
		"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd":
		return true
	}
	return false
}

// readError prefers the caller's own reason to stop over what it caused.
func readError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// corrupt marks what only a damaged source gives.
func corrupt(err error) error {
	if errors.Is(err, compress.ErrCorrupt) || errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, ErrInvalidLayer) {
		return fmt.Errorf("%w: its content is corrupt or ends early: %w", ErrVerification, err)
	}
	return err
}

// split reads the uncompressed tar to its end and checks its DiffID, or finds it
// out when the layer has none yet.
func (im *importer) split(l *stagedLayer, tar io.Reader) (err error) {
	l.dir = filepath.Join(im.temp.path, fmt.Sprintf("layer-%d", im.count.Add(1)))
	if err := im.s.disk.Mkdir(l.dir, 0o700); err != nil {
		return err
	}
	if l.split, err = im.s.disk.Create(filepath.Join(l.dir, "split.zst"), 0o600); err != nil {
		return err
	}
	l.builder = tree.NewBuilder(im.temp.path)
	sum := sha256.New()
	counted := &limited{r: io.TeeReader(tar, sum), im: im}
	meta := tarsplit.NewWriter(l.split)
	bodies := im.ingest.Writer()
	sp := splitting{tarsplit.NewSplitter(counted, meta), l.builder, bodies, im.charge}
	err = sp.members()
	if cerr := bodies.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := meta.Close(); err != nil {
		return err
	}
	l.size = counted.n
	got := DiffID(digest.NewDigest(digest.SHA256, sum))
	if l.diffID == "" {
		l.diffID = got
	}
	if got != l.diffID {
		return fmt.Errorf("%w: the uncompressed layer has the digest %s, but the config says %s; the image is corrupt or was tampered with",
			ErrVerification, got, l.diffID)
	}
	return nil
}

// A splitting takes one tar apart: bodies to the store, entries to the tree.
type splitting struct {
	*tarsplit.Splitter
	tree   *tree.Builder
	bodies bodyPutter
	charge func(n int64) error // counts bytes that the tar has not; nil counts nothing
}

// A bodyPutter stores bodies, or notes where they lie already.
type bodyPutter interface {
	Put(r io.Reader, size int64) (blob.Sum, error)
}

// members stores every member's body and then adds its entry; what follows the end
// of the archive is stored in the form of bodies.
func (sp *splitting) members() error {
	for {
		h, err := sp.Next()
		if err == io.EOF {
			return errors.Join(sp.tree.Drop(aufsLinks), sp.Drain(sp.extra))
		}
		if err != nil {
			return splitError(err)
		}
		before := sp.tree.Inodes()
		if err := sp.member(h); err != nil {
			return fmt.Errorf("entry %q at offset %d: %w", tree.Clip(h.Name), h.Offset, layerError(err))
		}
		// Directories that a path brings by the way are no bytes of the tar, but take as
		// much as if each had its header there.
		if implied := int64(sp.tree.Inodes()-before) - 1; implied > 0 && sp.charge != nil {
			if err := sp.charge(implied * 512); err != nil {
				return err
			}
		}
	}
}

func (sp *splitting) member(h *tarsplit.Header) error {
	if h.BodySize == 0 {
		return apply(sp.tree, h, tree.Sum{})
	}
	put := sp.bodies.Put
	if !h.IsRegular() || whiteout(h.Name) {
		put = sp.extra // the tree may get no file for it, but the tar needs it
	}
	var sum tree.Sum
	err := sp.Body(func(r io.Reader, size int64) (_ tarsplit.Sum, err error) {
		sum, err = put(r, size)
		return sum, err
	})
	if err != nil {
		return err
	}
	return apply(sp.tree, h, sum)
}

// extra stores a body that no file of the tree has.
func (sp *splitting) extra(r io.Reader, size int64) (tarsplit.Sum, error) {
	sum, err := sp.bodies.Put(r, size)
	if err != nil {
		return sum, err
	}
	return sum, sp.tree.Body(sum, size)
}

func splitError(err error) error {
	var fe *tarsplit.FormatError
	if errors.As(err, &fe) {
		return fmt.Errorf("%w: %w", ErrInvalidLayer, err)
	}
	return err
}

// layerError marks what the tree refuses as the layer's fault.
func layerError(err error) error {
	for _, target := range []error{tree.ErrNotDirectory, tree.ErrLinkToDirectory, tree.ErrTooDeep, tree.ErrBadPath, tree.ErrTooManyLinks, tree.ErrTooLarge, tree.ErrInvalid} {
		if errors.Is(err, target) {
			return fmt.Errorf("%w: %w", ErrInvalidLayer, err)
		}
	}
	return err
}

// A limited counts the bytes of the uncompressed tar and stops a bomb.
type limited struct {
	r  io.Reader
	im *importer
	n  int64
}

func (l *limited) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	l.n += int64(n)
	if err := l.im.charge(int64(n)); err != nil {
		return 0, err
	}
	return n, err
}

// charge counts bytes of uncompressed layers, up to the limit.
func (im *importer) charge(n int64) error {
	if used := im.used.Add(n); im.limit > 0 && used > im.limit {
		return fmt.Errorf("%w: the uncompressed layers exceed %d bytes; allow more if the image can be trusted", ErrTooLarge, im.limit)
	}
	return nil
}

// A meter counts the bytes of the blob for the progress, and stops when the caller
// does not want to go on.
type meter struct {
	ctx context.Context
	r   io.Reader
	p   *progressor
}

func (m *meter) Read(p []byte) (int, error) {
	if err := m.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := m.r.Read(p)
	m.p.add(n)
	return n, err
}

// record describes a layer for the index.
func (l *stagedLayer) record(st tree.Stats, metaBytes int64) index.Layer {
	return index.Layer{
		DiffID: digest.Digest(l.diffID), Size: l.size, Created: time.Now().UTC().Round(0),
		Entries: st.Entries, Files: st.Files, Whiteouts: st.Whiteouts + st.Opaques,
		Bytes: st.Bytes, Bodies: st.Bodies, BodyBytes: st.BodyBytes, MetaBytes: metaBytes,
	}
}
