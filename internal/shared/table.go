// Package shared keeps tables in memory that outlives the process: it belongs to a
// file without a name, whose descriptor another process holds. A process that is
// killed leaves the table as it was between two of its stores to memory, so a record
// must make sense after each of them: its first word is written last when it is
// made, and cleared first when it is given up.
package shared

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// chunkSize is what a table grows by, a multiple of the page size.
const chunkSize = 256 << 10

// None is the number of a record that is not in the table, because it could not grow.
const None = 1<<32 - 1

// A Table is an array of records of one size, of which those are in use whose first
// eight bytes are not zero. Its methods may be called from any number of goroutines.
type Table struct {
	file *os.File
	size int // of a record
	per  int // records in a chunk

	mu     sync.Mutex
	chunks []*chunk
	first  int // no chunk before it has room
}

// A chunk is a part of the table.
type chunk struct {
	mem  []byte
	next uint32   // records from here on were never used
	free []uint32 // records before it that are free
	live int
}

// New makes an empty table. The size of a record is a multiple of eight, and divides
// the size of a page or is one.
func New(name string, size int) (*Table, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("shared memory: %w", err)
	}
	return &Table{file: os.NewFile(uintptr(fd), name), size: size, per: chunkSize / size}, nil
}

// Open maps a table that another process has made. The file belongs to the table from
// here on.
func Open(file *os.File, size int) (*Table, error) {
	t := &Table{file: file, size: size, per: chunkSize / size}
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size()%chunkSize != 0 {
		return nil, errors.New("shared memory: its size is not that of a table")
	}
	for n := info.Size() / chunkSize; n > 0; n-- {
		c, err := t.mapChunk(len(t.chunks))
		if err != nil {
			return nil, errors.Join(err, t.Close())
		}
		c.next = uint32(t.per)
		for i := range t.per {
			if used(c.record(i, size)) {
				c.live++
			} else {
				c.free = append(c.free, uint32(i))
			}
		}
		t.chunks = append(t.chunks, c)
	}
	return t, nil
}

func used(rec []byte) bool { return binary.NativeEndian.Uint64(rec) != 0 }

func (c *chunk) record(i, size int) []byte { return c.mem[i*size : (i+1)*size : (i+1)*size] }

func (t *Table) mapChunk(i int) (*chunk, error) {
	mem, err := unix.Mmap(int(t.file.Fd()), int64(i)*chunkSize, chunkSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("shared memory: %w", err)
	}
	return &chunk{mem: mem}, nil
}

// File returns the file that the table lies in; it stays the table's.
func (t *Table) File() *os.File { return t.file }

// Alloc returns a record of zeros and its number. The caller fills it, the first word
// last. Where there is no memory to share the record is one of this process alone, with
// the number None.
func (t *Table) Alloc() (uint32, []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for ; t.first < len(t.chunks); t.first++ {
		if t.chunks[t.first].live < t.per {
			break
		}
	}
	if t.first == len(t.chunks) && t.grow() != nil {
		words := make([]uint64, t.size/8)
		return None, unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), t.size)
	}
	c := t.chunks[t.first]
	c.live++
	i := c.next
	if n := len(c.free); n > 0 {
		i = c.free[n-1]
		c.free = c.free[:n-1]
	} else {
		c.next++
	}
	rec := c.record(int(i), t.size)
	clear(rec)
	return uint32(t.first*t.per) + i, rec
}

// grow adds a chunk. Preconditions: t.mu is held.
func (t *Table) grow() error {
	n := len(t.chunks)
	if err := t.file.Truncate(int64(n+1) * chunkSize); err != nil {
		return err
	}
	c, err := t.mapChunk(n)
	if err == nil {
		t.chunks = append(t.chunks, c)
	}
	return err
}

// Free gives a record up; None is ignored. A chunk that nobody uses any more gives its
// memory back.
func (t *Table) Free(i uint32) {
	if i == None {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	n := int(i) / t.per
	c := t.chunks[n]
	clear(c.record(int(i)%t.per, t.size)[:8])
	c.live--
	t.first = min(t.first, n)
	if c.live > 0 {
		c.free = append(c.free, i%uint32(t.per))
		return
	}
	c.next, c.free = 0, nil
	_ = unix.Madvise(c.mem, unix.MADV_REMOVE) // else it stays in memory, which is no harm
}

// At returns the record with a number that Alloc or Each has given.
func (t *Table) At(i uint32) []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.chunks[int(i)/t.per].record(int(i)%t.per, t.size)
}

// Each calls fn for each record that is in use. Nobody else may use the table meanwhile.
func (t *Table) Each(fn func(i uint32, rec []byte)) {
	for n, c := range t.chunks {
		for i := range t.per {
			if rec := c.record(i, t.size); used(rec) {
				fn(uint32(n*t.per+i), rec)
			}
		}
	}
}

// Len returns the number of records in use.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, c := range t.chunks {
		n += c.live
	}
	return n
}

// Close unmaps the table. No record may be used afterwards.
func (t *Table) Close() error {
	for _, c := range t.chunks {
		_ = unix.Munmap(c.mem) // cannot fail for what Mmap returned
	}
	t.chunks = nil
	return t.file.Close()
}
