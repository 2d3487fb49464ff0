package spool

// Bytes is a growing string of bytes.
type Bytes struct {
	heap []byte // while it is small; nil once the region is in use
	file region
	n    int
}

// NewBytes returns an empty string that, when it grows, makes a file in dir.
// Nothing is allocated yet. The caller closes it.
func NewBytes(dir string) *Bytes { return &Bytes{file: region{dir: dir}} }

// Append adds p and returns where it begins. After an error the string is as
// before.
func (b *Bytes) Append(p []byte) (int, error) {
	end := b.n + len(p)
	if b.file.mem == nil && end <= heapMax {
		b.heap = append(b.heap, p...)
		b.n = end
		return end - len(p), nil
	}
	if err := b.file.reserve(end); err != nil {
		return 0, err
	}
	if b.heap != nil {
		copy(b.file.mem, b.heap)
		b.heap = nil
	}
	copy(b.file.mem[b.n:], p)
	b.n = end
	return end - len(p), nil
}

// Get returns n bytes at off, valid until the next Append or Close. It panics
// when they do not lie inside the string.
func (b *Bytes) Get(off, n int) []byte {
	if b.file.mem == nil {
		return b.heap[:b.n:b.n][off : off+n : off+n]
	}
	return b.file.mem[:b.n:b.n][off : off+n : off+n]
}

// Len returns the number of bytes.
func (b *Bytes) Len() int { return b.n }

// Close gives memory and disk space back and empties the string. A second call
// does nothing.
func (b *Bytes) Close() error {
	b.heap, b.n = nil, 0
	return b.file.close()
}
