package layers

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"os"
	"runtime/debug"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// A hashWriter hashes what it writes on a second core, from the very memory that it
// was given (tarsplit.Swapper): copying it for the hasher would cost a third of the
// throughput.
type hashWriter struct {
	ctx    context.Context
	w      io.Writer
	pipe   int // descriptor, when w is a pipe, else -1
	bodies *wholeBodies
	// lending: pages of the store are in the pipe.
	lending bool

	todo   chan hashPiece
	free   chan []byte // buffers to go on with
	result chan error
	h      hash.Hash
}

// A hashPiece is something to hash and what is to be done with its memory then.
type hashPiece struct {
	p     []byte
	lent  bool   // comes back through free
	unmap []byte // is unmapped
}

const (
	// hashAhead is how many pieces the writing may be ahead of the hashing.
	hashAhead = 4
	// hashPieceSize is what is written and hashed at once of large bodies.
	hashPieceSize = 1 << 20
	// pipeSize is what an ordinary user may make a pipe hold; fewer changes of
	// process for the same bytes.
	pipeSize = 1 << 20
)

func newHashWriter(ctx context.Context, w io.Writer, bodies *wholeBodies) *hashWriter {
	v := &hashWriter{
		ctx: ctx, w: &ctxWriter{ctx, w}, pipe: pipeOf(w), bodies: bodies, h: sha256.New(),
		todo: make(chan hashPiece, hashAhead), free: make(chan []byte, hashAhead+2), result: make(chan error, 1),
	}
	go v.hash()
	return v
}

// pipeOf returns the descriptor of a pipe, or -1 for any other writer.
func pipeOf(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return -1
	}
	st, err := f.Stat()
	if err != nil || st.Mode()&os.ModeNamedPipe == 0 {
		return -1
	}
	fd := int(f.Fd())
	// Only speed is lost when it stays small.
	_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, pipeSize)
	return fd
}

// hash works until todo is closed. After a fault, which a disk error causes in a
// mapping, it only gives memory back.
func (v *hashWriter) hash() {
	debug.SetPanicOnFault(true)
	var err error
	for piece := range v.todo {
		if err == nil {
			err = v.add(piece.p)
		}
		if piece.lent {
			v.free <- piece.p
		}
		if piece.unmap != nil {
			_ = unix.Munmap(piece.unmap) // cannot fail for what Mmap returned
		}
	}
	v.result <- err
}

func (v *hashWriter) add(p []byte) (err error) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(interface{ Addr() uintptr }); !ok {
				panic(r)
			}
			err = errUnreadable
		}
	}()
	v.h.Write(p)
	return nil
}

// Write implements io.Writer for memory that stays as it is: bodies that are mapped.
func (v *hashWriter) Write(p []byte) (int, error) {
	unmap := v.bodies.take(p)
	for done := 0; ; {
		piece := p[done:min(done+hashPieceSize, len(p))]
		last := done+len(piece) == len(p)
		if unmap != nil {
			// In one go; an error, as from a kernel before 5.14, leaves it to who reads.
			_ = unix.Madvise(unmap[done:done+len(piece)], unix.MADV_POPULATE_READ)
		}
		err := v.out(piece)
		todo := hashPiece{p: piece}
		if last || err != nil {
			todo.unmap = unmap
		}
		v.todo <- todo
		if done += len(piece); last || err != nil {
			return done, err
		}
	}
}

// out writes memory that does not change any more. A pipe takes the pages
// themselves: whoever reads them copies them for the first time.
func (v *hashWriter) out(p []byte) error {
	if v.pipe < 0 {
		_, err := v.w.Write(p)
		return err
	}
	for len(p) > 0 {
		if err := v.ctx.Err(); err != nil {
			return err
		}
		iov := unix.Iovec{Base: &p[0]}
		iov.SetLen(len(p))
		n, err := unix.Vmsplice(v.pipe, []unix.Iovec{iov}, 0)
		switch err {
		case nil:
			p, v.lending = p[n:], true
		case unix.EINTR:
		case unix.EFAULT:
			return fmt.Errorf("%w: %w", ErrDamaged, errUnreadable)
		default: // closed at the other end, or set not to wait: package os knows what to do
			_, err := v.w.Write(p)
			return err
		}
	}
	return nil
}

// drain waits until the reader of the pipe has taken all pages out of it: until then
// they are those of the store, and a collection could change what is in them.
func (v *hashWriter) drain() error {
	for wait := 50 * time.Microsecond; v.lending && v.ctx.Err() == nil; wait = min(2*wait, 20*time.Millisecond) {
		left, err := unix.IoctlGetInt(v.pipe, unix.TIOCINQ)
		poll := []unix.PollFd{{Fd: int32(v.pipe)}}
		if n, _ := unix.Poll(poll, 0); err != nil || left == 0 || n > 0 && poll[0].Revents&unix.POLLERR != 0 {
			break
		}
		time.Sleep(wait)
	}
	return v.ctx.Err()
}

// Swap implements tarsplit.Swapper. There are never more than hashAhead+2 buffers:
// those that wait, one that is hashed and one that is filled.
func (v *hashWriter) Swap(full []byte) ([]byte, error) {
	v.todo <- hashPiece{p: full, lent: true}
	if _, err := v.w.Write(full); err != nil {
		return nil, err
	}
	select {
	case p := <-v.free:
		return p, nil
	default:
		return make([]byte, cap(full)), nil
	}
}

// sum ends the hasher and returns the digest of all that was written.
func (v *hashWriter) sum() (digest.Digest, error) {
	close(v.todo)
	err := <-v.result
	return digest.NewDigest(digest.SHA256, v.h), err
}
