package blob

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"runtime/debug"
)

// BodyAt reads len(p) bytes at offset off of the body that has the given size
// and lies at pl, as io.ReaderAt does: fewer bytes only at the end of the body,
// and with io.EOF. A body that is missing or too short is ErrDamaged. The bytes
// are not verified. It does not allocate once the pack is mapped or the object
// open.
func (s *Store) BodyAt(sum Sum, size int64, pl Place, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("%s: offset %d: %w", digestOf("body", sum), off, fs.ErrInvalid)
	}
	if off >= size {
		return 0, io.EOF
	}
	want := p[:min(int64(len(p)), size-off)]
	var n int
	var err error
	if pl.Pack != 0 {
		n, err = s.readPack(size, pl, want, off)
	} else {
		n, err = s.readObject(&sum, size, want, off)
	}
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

// readPack fills p from a body in a pack.
func (s *Store) readPack(size int64, pl Place, p []byte, off int64) (int, error) {
	if pl.Offset < 0 || pl.Offset > math.MaxInt64-size {
		return 0, fmt.Errorf("%s: offset %d: %w", packName(pl.Pack), pl.Offset, ErrDamaged)
	}
	m, err := s.packs.acquire(pl.Pack, pl.Offset+size, false)
	if err != nil {
		return 0, err
	}
	defer m.release()
	if err := guard(func() { copy(p, m.data[pl.Offset+off:]) }); err != nil {
		return 0, fmt.Errorf("%s: offset %d: %w", packName(pl.Pack), pl.Offset, err)
	}
	return len(p), nil
}

// guard runs fn, which reads a mapping, and turns the fault that a disk error
// or a truncated file causes there into ErrDamaged.
func guard(fn func()) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		if fault, ok := r.(interface{ Addr() uintptr }); ok && fault != nil {
			err = fmt.Errorf("unreadable: %w", ErrDamaged)
			return
		}
		panic(r)
	}()
	fn()
	return nil
}

// readObject fills p from an object.
func (s *Store) readObject(sum *Sum, size int64, p []byte, off int64) (int, error) {
	o, err := s.objects.acquire(sum)
	if err != nil {
		return 0, missingIsDamage(err)
	}
	defer s.objects.release(o)
	if o.size != size {
		s.objects.forget(*sum) // it may have been replaced by a good one since
		return 0, fmt.Errorf("%s: %d bytes instead of %d: %w", digestOf("object", *sum), o.size, size, ErrDamaged)
	}
	n, err := o.f.ReadAt(p, off)
	if errors.Is(err, io.EOF) {
		return n, fmt.Errorf("%s: shorter than %d bytes: %w", digestOf("object", *sum), size, ErrDamaged)
	}
	return n, err
}

// PackBytes returns n bytes at offset off of the body at pl as a part of the
// pack's mapping: nothing is copied or allocated. Bytes that lie behind the end
// of the file are ErrDamaged; that they lie inside the body is for the caller
// to check, and so is that the place is in a pack.
//
// The slice must not be written to. It is valid until Close or until somebody
// tells Forget or RemovePack about the pack; for a caller who holds a Pin on the
// pack it is valid until Unpin. A disk error shows as a fault when the bytes are
// touched: see debug.SetPanicOnFault. Passed to a system call it is EFAULT.
func (s *Store) PackBytes(pl Place, off, n int64) ([]byte, error) {
	if pl.Pack == 0 {
		return nil, fmt.Errorf("object: not in a pack: %w", fs.ErrInvalid)
	}
	if off < 0 || n < 0 || pl.Offset < 0 || pl.Offset > math.MaxInt64-off || pl.Offset+off > math.MaxInt64-n {
		return nil, fmt.Errorf("%s: bytes %d+%d+%d: %w", packName(pl.Pack), pl.Offset, off, n, ErrDamaged)
	}
	start := pl.Offset + off
	m, err := s.packs.acquire(pl.Pack, start+n, true)
	if err != nil {
		return nil, err
	}
	m.release() // lent: the cache keeps it
	return m.data[start : start+n : start+n], nil
}

// VerifyBody reads a body and compares it with its digest. It returns
// ErrDamaged when they differ.
func (s *Store) VerifyBody(sum Sum, size int64, pl Place) error {
	h := sha256.New()
	buf := make([]byte, min(max(size, 0), 256<<10))
	for off := int64(0); off < size; {
		n, err := s.BodyAt(sum, size, pl, buf, off)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		h.Write(buf[:n])
		off += int64(n)
	}
	var got Sum
	if h.Sum(got[:0]); got != sum {
		return fmt.Errorf("%s: content has sha256:%x: %w", digestOf("body", sum), got, ErrDamaged)
	}
	return nil
}
