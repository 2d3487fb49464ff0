package blob

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
)

// verifyWindow is how much is read at once. A body in a pack is smaller, so that a
// window always holds at least one.
const verifyWindow = 1 << 20

// A BodyVerifier reads bodies and compares them with their digests. It reads files
// itself, from the front to the back, and is for one goroutine.
type BodyVerifier struct {
	s   *Store
	buf []byte

	pack PackID // whose file is open
	file *os.File
	at   int64 // where the window begins in the file
	n    int   // bytes in the window
	err  error // of opening the pack
}

// NewBodyVerifier returns a verifier, which the caller closes.
func (s *Store) NewBodyVerifier() *BodyVerifier {
	return &BodyVerifier{s: s, buf: make([]byte, verifyWindow)}
}

// Close closes the file that is open.
func (v *BodyVerifier) Close() {
	if v.file != nil {
		v.file.Close() // read only
	}
	v.file, v.pack, v.n = nil, 0, 0
}

// Verify reads a body. It returns ErrDamaged when it is missing, too short or not
// what its digest names. Bodies of a pack cost least in the order of their offsets.
func (v *BodyVerifier) Verify(b Placed) error {
	if b.Place.Pack == 0 {
		return v.object(b)
	}
	p, err := v.window(b)
	if err != nil {
		return err
	}
	if sha256.Sum256(p) != b.Sum {
		return fmt.Errorf("%s: in %s at %d: %w", digestOf("body", b.Sum), packName(b.Place.Pack), b.Place.Offset, ErrDamaged)
	}
	return nil
}

// window returns the bytes of a body in a pack.
func (v *BodyVerifier) window(b Placed) ([]byte, error) {
	if b.Size < 0 || b.Size > verifyWindow || b.Place.Offset < 0 {
		return nil, fmt.Errorf("%s: %d bytes at %d in %s: %w", digestOf("body", b.Sum), b.Size, b.Place.Offset, packName(b.Place.Pack), ErrDamaged)
	}
	if v.pack != b.Place.Pack {
		v.Close()
		v.pack = b.Place.Pack
		v.file, v.err = openFile(v.s.packPath(v.pack), packName(v.pack))
	}
	if v.err != nil {
		return nil, missingIsDamage(v.err)
	}
	if b.Place.Offset < v.at || b.Place.Offset+b.Size > v.at+int64(v.n) || v.n == 0 {
		n, err := v.file.ReadAt(v.buf, b.Place.Offset)
		if err != nil && !errors.Is(err, io.EOF) {
			v.n = 0
			return nil, fmt.Errorf("%s: %w: %w", packName(v.pack), err, ErrDamaged)
		}
		v.at, v.n = b.Place.Offset, n
	}
	off := b.Place.Offset - v.at
	if off+b.Size > int64(v.n) {
		return nil, fmt.Errorf("%s: it ends before %s: %w", packName(v.pack), digestOf("body", b.Sum), ErrDamaged)
	}
	return v.buf[off : off+b.Size], nil
}

// object verifies a body that has a file of its own.
func (v *BodyVerifier) object(b Placed) error {
	f, err := openFile(v.s.objectPath(b.Sum), digestOf("object", b.Sum))
	if err != nil {
		return missingIsDamage(err)
	}
	defer f.Close() // read only
	v.Close()       // the buffer is used for something else
	h := sha256.New()
	n, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{f}, v.buf)
	if err != nil {
		return fmt.Errorf("%s: %w: %w", digestOf("object", b.Sum), err, ErrDamaged)
	}
	if n != b.Size {
		return fmt.Errorf("%s: %d bytes instead of %d: %w", digestOf("object", b.Sum), n, b.Size, ErrDamaged)
	}
	var got Sum
	if h.Sum(got[:0]); got != b.Sum {
		return fmt.Errorf("%s: content has sha256:%x: %w", digestOf("object", b.Sum), got, ErrDamaged)
	}
	return nil
}

// VerifyBlob reads a blob of any size and compares it with its digest. It returns
// ErrNotFound or ErrDamaged.
func (s *Store) VerifyBlob(sum Sum) error {
	f, err := s.OpenBlob(sum)
	if err != nil {
		return err
	}
	defer f.Close() // read only
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return fmt.Errorf("%s: %w: %w", digestOf("blob", sum), err, ErrDamaged)
	}
	var got Sum
	if h.Sum(got[:0]); got != sum {
		return fmt.Errorf("%s: content has sha256:%x: %w", digestOf("blob", sum), got, ErrDamaged)
	}
	return nil
}

// BlobPath, ObjectPath and PackPath are where files lie, for those who move damaged
// ones aside.
func (s *Store) BlobPath(sum Sum) string { return s.blobPath(sum) }

// ObjectPath returns where the object is or would be.
func (s *Store) ObjectPath(sum Sum) string { return s.objectPath(sum) }

// PackPath returns where the pack is or would be.
func (s *Store) PackPath(id PackID) string { return s.packPath(id) }

// ReplacePacked writes a body to the place in a pack where it should be: the pack is
// damaged there, cut off before, or missing. It is durable after SyncPack. Who has
// the pack mapped sees the body at once.
//
// Preconditions: nobody collects meanwhile.
func (s *Store) ReplacePacked(b Placed, data []byte) error {
	if sha256.Sum256(data) != b.Sum || b.Place.Pack == 0 || b.Place.Offset < 0 {
		return fmt.Errorf("%s: not the content for its place: %w", digestOf("body", b.Sum), ErrDamaged)
	}
	f, err := os.OpenFile(s.packPath(b.Place.Pack), os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, b.Place.Offset)
	return errors.Join(err, f.Close())
}

// SyncPack makes what was replaced in a pack durable.
func (s *Store) SyncPack(id PackID) error {
	f, err := os.OpenFile(s.packPath(id), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	err = errors.Join(f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return s.disk.SyncDir(s.packsDir())
}

// ForgetObject closes the object if it is open, because its file is another now.
func (s *Store) ForgetObject(sum Sum) { s.objects.forget(sum) }
