package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/layers"
)

// Compressed layers are read at any offset. One that the store keeps is read from its file. One that is made again is
// made once, from beginning to end, into a file without a name; readers wait until what they want is there. Its last
// byte is given out only after the whole has the right digest, so nobody who reads all of it gets anything else. The
// files vanish when nobody has read them for a while.

const (
	maxBlobFiles = 32               // open at once, those that are being made not counted
	maxMade      = 8                // of them made again
	blobIdle     = 30 * time.Second // after that they are closed
)

// blobFiles are the compressed layers that are being read.
type blobFiles struct {
	mu   sync.Mutex
	open map[digest.Digest]*blobFile
}

// blobFile is one compressed layer.
type blobFile struct {
	blob *layers.LayerBlob
	file *os.File // the store's, or the one without a name
	size int64
	stop context.CancelFunc // ends the making

	users int       // guarded by blobFiles.mu
	used  time.Time // likewise: when the last user was done

	mu   sync.Mutex
	cond sync.Cond
	made int64 // bytes of file that are right
	done bool
	err  error
}

// readAt reads from the layer that d describes; at its end it returns what there is.
func (c *blobFiles) readAt(f *fileSystem, d ocispec.Descriptor, buf []byte, off int64) (int, error) {
	if off >= d.Size {
		return 0, nil
	}
	b, err := c.use(f, d)
	if err != nil {
		return 0, err
	}
	defer c.release(b)
	buf = buf[:min(int64(len(buf)), d.Size-off)]
	if err := b.wait(off + int64(len(buf))); err != nil {
		return 0, err
	}
	n, err := b.file.ReadAt(buf, off)
	if n == len(buf) {
		err = nil
	} else if err == nil || errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: blob %s is shorter than %d bytes; run `layerfs check`", layers.ErrDamaged, d.Digest, d.Size)
	}
	return n, err
}

// use returns the open file of a layer. The caller releases it.
func (c *blobFiles) use(f *fileSystem, d ocispec.Descriptor) (*blobFile, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b := c.open[d.Digest]; b != nil {
		b.users++
		return b, nil
	}
	c.trimLocked(maxBlobFiles-1, maxMade-1, time.Time{})
	ctx, stop := context.WithCancel(context.Background())
	blob, err := f.store.OpenLayerBlob(ctx, d)
	if err != nil {
		stop()
		return nil, err
	}
	b := &blobFile{blob: blob, size: d.Size, file: blob.File(), stop: stop, users: 1}
	b.cond.L = &b.mu
	if b.file != nil {
		b.made, b.done = d.Size, true
	} else if err := b.start(f.store); err != nil {
		stop()
		return nil, errors.Join(err, blob.Close())
	}
	if c.open == nil {
		c.open = map[digest.Digest]*blobFile{}
	}
	c.open[d.Digest] = b
	return b, nil
}

func (c *blobFiles) release(b *blobFile) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b.users--
	b.used = time.Now()
	if b.failed() && b.users == 0 { // the next one may have more luck
		c.dropLocked(b)
	}
}

// trim closes what has not been used since before.
func (c *blobFiles) trim(before time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trimLocked(maxBlobFiles, maxMade, before)
}

// trimLocked closes files without users: those that were not used since before, and the ones longest unused while there
// are more than keep, or more than made that are made again.
func (c *blobFiles) trimLocked(keep, made int, before time.Time) {
	for {
		var all, again int
		var oldest, oldestMade *blobFile
		for _, b := range c.open {
			all++
			if b.blob.File() == nil {
				again++
			}
			if b.users > 0 {
				continue
			}
			if oldest == nil || b.used.Before(oldest.used) {
				oldest = b
			}
			if b.blob.File() == nil && (oldestMade == nil || b.used.Before(oldestMade.used)) {
				oldestMade = b
			}
		}
		switch {
		case oldest != nil && (all > keep || oldest.used.Before(before)):
			c.dropLocked(oldest)
		case oldestMade != nil && again > made:
			c.dropLocked(oldestMade)
		default:
			return
		}
	}
}

func (c *blobFiles) dropLocked(b *blobFile) {
	delete(c.open, b.blob.Digest())
	b.stop()
	if b.blob.File() == nil {
		go b.abandon() // the making ends at its next step
		return
	}
	_ = b.blob.Close() // it was only read
}

// close closes everything. Preconditions: nobody reads.
func (c *blobFiles) close() {
	c.trim(time.Now().Add(time.Hour))
}

// start begins to make the layer.
func (b *blobFile) start(st *layers.Store) error {
	file, err := st.TempFile()
	if err != nil {
		return fmt.Errorf("file for a layer that is made again: %w", err)
	}
	b.file = file
	go func() {
		_, err := b.blob.WriteTo(madeWriter{b})
		// What it is made of need not be kept open; it was only read.
		_ = b.blob.Close()
		b.finish(err)
	}()
	return nil
}

// A madeWriter tells waiting readers how far a layer has come. All but the last byte is theirs at once.
type madeWriter struct{ b *blobFile }

func (w madeWriter) Write(p []byte) (int, error) {
	b := w.b
	n, err := b.file.Write(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.made += int64(n)
	b.cond.Broadcast()
	return n, err
}

func (b *blobFile) finish(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done, b.err = true, err
	b.cond.Broadcast()
}

func (b *blobFile) failed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err != nil
}

// wait returns when the first n bytes are there.
func (b *blobFile) wait(n int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for !b.done && (b.made < n || n >= b.size) {
		b.cond.Wait()
	}
	return b.err
}

// abandon waits for the end of the making and gives the file up.
func (b *blobFile) abandon() {
	b.mu.Lock()
	for !b.done {
		b.cond.Wait()
	}
	b.mu.Unlock()
	b.file.Close() // nobody wants its content
}
