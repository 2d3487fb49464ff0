package fs

import (
	"compress/gzip"
	"io"
	"os"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/layerfs/layerfs/tarsplit"
)

// podmanAttr fills out for a file of the podman view.
func (f *fileSystem) podmanAttr(s *snapshot, node uint64, out *fuse.Attr) syscall.Errno {
	p := f.podman(s).file(node)
	switch {
	case p == nil:
		return syscall.ESTALE
	case p.link:
		f.own(out, syscall.S_IFLNK|0o777, int64(len(p.text)), p.time)
	case p.split != nil:
		file, size, err := f.splits.use(f, p.split)
		if err != nil {
			return f.errno(err)
		}
		file.Close()
		f.own(out, syscall.S_IFREG|0o444, size, p.time)
	case p.blob.Digest != "":
		f.own(out, syscall.S_IFREG|0o444, p.blob.Size, p.time)
	default:
		f.own(out, syscall.S_IFREG|0o444, int64(len(p.text)), p.time)
	}
	return 0
}

// podmanLinkAt returns the target of a link of the podman view.
func (f *fileSystem) podmanLinkAt(s *snapshot, node uint64) ([]byte, syscall.Errno) {
	p := f.podman(s).file(node)
	if p == nil {
		return nil, syscall.ESTALE
	}
	if !p.link {
		return nil, syscall.EINVAL
	}
	return []byte(p.text), 0
}

// readPodman reads from a file of the podman view.
func (f *fileSystem) readPodman(s *snapshot, node uint64, buf []byte, off int64) ([]byte, syscall.Errno) {
	p := f.podman(s).file(node)
	switch {
	case p == nil:
		return nil, syscall.ESTALE
	case p.split != nil:
		file, _, err := f.splits.use(f, p.split)
		if err != nil {
			return nil, f.errno(err)
		}
		defer file.Close()
		n, err := file.ReadAt(buf, off)
		if err != nil && err != io.EOF {
			return nil, f.errno(err)
		}
		return buf[:n], 0
	case p.blob.Digest != "":
		text, err := f.store.Blob(p.blob.Digest)
		if err != nil {
			return nil, f.errno(err)
		}
		return readText(text, buf, off), 0
	}
	return readText([]byte(p.text), buf, off), 0
}

// maxSplits is how many files of tar-split metadata are kept for those who read them.
const maxSplits = 32

// splitFiles makes the tar-split metadata of layers in the form of containers/storage when somebody asks for the size
// or the content of it, which only pushing and saving do. Making it reads the whole layer, and gives the same bytes
// each time. The files have no name and vanish with the process.
type splitFiles struct {
	mu    sync.Mutex
	files map[*layer]*splitFile
	order []*layer // the oldest first
}

// splitFile is the metadata of one layer, made by the first who needs it.
type splitFile struct {
	once sync.Once
	file *os.File
	size int64
	err  error
}

// use returns the file, which the caller closes, and its size.
func (c *splitFiles) use(f *fileSystem, l *layer) (*os.File, int64, error) {
	c.mu.Lock()
	if c.files == nil {
		c.files = map[*layer]*splitFile{}
	}
	sf := c.files[l]
	if sf == nil {
		sf = &splitFile{}
		c.files[l] = sf
		c.order = append(c.order, l)
	}
	c.mu.Unlock()
	sf.once.Do(func() { sf.file, sf.size, sf.err = f.makeSplit(l) })
	if sf.err != nil {
		c.drop(l, sf) // the next one may have more luck
		return nil, 0, sf.err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	fd, err := syscall.Dup(int(sf.file.Fd()))
	if err != nil {
		return nil, 0, err
	}
	c.trimLocked()
	return os.NewFile(uintptr(fd), "tar-split"), sf.size, nil
}

// drop forgets a file that could not be made.
func (c *splitFiles) drop(l *layer, sf *splitFile) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.files[l] == sf {
		delete(c.files, l)
	}
}

// trimLocked closes the oldest files when there are too many.
func (c *splitFiles) trimLocked() {
	for len(c.order) > maxSplits {
		if sf := c.files[c.order[0]]; sf != nil && sf.file != nil {
			// Not closed here: another request may be about to duplicate it. The finalizer does.
			delete(c.files, c.order[0])
		}
		c.order = c.order[1:]
	}
}

// makeSplit writes the metadata of a layer to a file.
func (f *fileSystem) makeSplit(l *layer) (_ *os.File, size int64, err error) {
	o, err := f.use(l)
	if err != nil {
		return nil, 0, err
	}
	tar, err := o.Tar()
	if err != nil {
		return nil, 0, err
	}
	file, err := os.CreateTemp("", "layerfs-split-")
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		if err != nil {
			file.Close()
		}
	}()
	if err := os.Remove(file.Name()); err != nil {
		return nil, 0, err
	}
	z := gzip.NewWriter(file)
	if err := tarsplit.WriteJSON(z, tar); err != nil {
		return nil, 0, err
	}
	if err := z.Close(); err != nil {
		return nil, 0, err
	}
	size, err = file.Seek(0, io.SeekEnd)
	return file, size, err
}
