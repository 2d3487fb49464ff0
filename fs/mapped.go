package fs

import (
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/index/tree"
	"github.com/layerfs/layerfs/layers"
)

// Large reads of large files are answered out of a mapping of the store's file: the kernel copies straight from the
// page cache of the one file into that of the other, instead of through a buffer. Only a few files are read in this way
// at a time, so few are kept mapped.

const (
	mappedRead = 64 << 10 // reads from this size on, which only sequential readers cause
	maxMapped  = 32       // files

	mappedPiece = 2 << 20 // mapped at a time, a multiple of the page size
)

// mappings are the files that are mapped, the one used last at the end.
type mappings struct {
	mu      sync.Mutex
	list    []mapping
	retired [][]byte // unmapped when no request can be using them any more
}

// mapping is the content of a file.
type mapping struct {
	node uint64
	data []byte
}

// bytes returns n bytes of a file at off out of its mapping, valid until the request is over; false when the file is not
// one that is mapped.
func (m *mappings) bytes(o *layers.Layer, node uint64, i tree.Ino, off, n int64) ([]byte, bool) {
	data, ok := m.get(o, node, i)
	if !ok || off >= int64(len(data)) {
		return nil, false
	}
	ahead(data, off, n)
	return data[off:min(off+n, int64(len(data)))], true
}

// get returns the mapping of a file, which it makes when there is none.
func (m *mappings) get(o *layers.Layer, node uint64, i tree.Ino) ([]byte, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.find(node)
	if !ok {
		if data, ok = mapBody(o, i); ok {
			m.add(mapping{node, data})
		}
	}
	return data, ok
}

// ahead has the kernel read and map the piece of a file that a read of n bytes at off begins, in one go: page by page,
// as the copy needs them, takes longer. Whoever reads a file from end to end begins every piece.
func ahead(data []byte, off, n int64) {
	if off%mappedPiece >= n {
		return
	}
	from := off - off%mappedPiece
	// An error, such as from a kernel before 5.14, leaves the work to the copy.
	_ = unix.Madvise(data[from:min(from+mappedPiece, int64(len(data)))], unix.MADV_POPULATE_READ)
}

func (m *mappings) find(node uint64) ([]byte, bool) {
	for i := len(m.list) - 1; i >= 0; i-- {
		if m.list[i].node == node {
			found := m.list[i]
			copy(m.list[i:], m.list[i+1:])
			m.list[len(m.list)-1] = found
			return found.data, true
		}
	}
	return nil, false
}

func (m *mappings) add(x mapping) {
	if len(m.list) == maxMapped {
		m.retired = append(m.retired, m.list[0].data)
		m.list = append(m.list[:0], m.list[1:]...)
	}
	m.list = append(m.list, x)
}

// mapBody maps the file of the store that is the content of i.
func mapBody(o *layers.Layer, i tree.Ino) ([]byte, bool) {
	file, ok, err := o.OpenBody(i)
	if err != nil || !ok {
		return nil, false
	}
	defer file.Close() // it was only read
	a, err := o.Tree().Attr(i)
	st, err2 := file.Stat()
	if err != nil || err2 != nil || st.Size() != a.Size || a.Size == 0 {
		return nil, false // the plain way says what is wrong
	}
	data, err := unix.Mmap(int(file.Fd()), 0, int(a.Size), unix.PROT_READ, unix.MAP_SHARED)
	return data, err == nil
}

// retire gives up the files of a layer that is let go: mapped, they would keep their place on the disk.
func (m *mappings) retire(l *layer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.list = slices.DeleteFunc(m.list, func(x mapping) bool {
		_, slot, _ := splitID(x.node)
		if slot == l.slot {
			m.retired = append(m.retired, x.data)
		}
		return slot == l.slot
	})
}

// drop unmaps what was retired, and with all everything. quiesce returns when every request that has begun is done.
func (m *mappings) drop(all bool, quiesce func()) {
	m.mu.Lock()
	old := m.retired
	m.retired = nil
	if all {
		for _, x := range m.list {
			old = append(old, x.data)
		}
		m.list = nil
	}
	m.mu.Unlock()
	if len(old) == 0 {
		return
	}
	quiesce()
	for _, data := range old {
		_ = unix.Munmap(data) // cannot fail for what Mmap returned
	}
}
