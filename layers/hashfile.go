package layers

import (
	"context"
	"hash"
	"io"
	"os"
	"sync"
)

// hashReadSize is how much is read and hashed at once: what stays in the cache of a core.
// Mapping a file instead of reading it costs more where the page tables are those of a
// virtual machine.
const hashReadSize = 256 << 10

var hashBuffers = sync.Pool{New: func() any { return new([hashReadSize]byte) }}

// HashFile adds size bytes of a file, from off on, to a hash. A file that ends before is
// io.ErrUnexpectedEOF. It may be one that is being written to behind that.
func HashFile(ctx context.Context, h hash.Hash, f *os.File, off, size int64) error {
	buf := hashBuffers.Get().(*[hashReadSize]byte)
	defer hashBuffers.Put(buf)
	for size > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := f.ReadAt(buf[:min(size, hashReadSize)], off)
		h.Write(buf[:n])
		off, size = off+int64(n), size-int64(n)
		if err == io.EOF && size > 0 {
			return io.ErrUnexpectedEOF
		}
		if err != nil && err != io.EOF {
			return err
		}
	}
	return nil
}
