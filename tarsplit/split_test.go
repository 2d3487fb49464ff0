package tarsplit

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"sync"
)

// A tester is a *testing.T, a *testing.B or a *rapid.T.
type tester interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// memory is a store of bodies for tests.
type memory struct {
	mu     sync.Mutex
	bodies map[Sum][]byte
	plain  bool // hide Bytes
}

func newMemory() *memory { return &memory{bodies: map[Sum][]byte{}} }

func (m *memory) Put(r io.Reader, size int64) (Sum, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return Sum{}, err
	}
	sum := sha256.Sum256(data)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bodies[sum] = data
	return sum, nil
}

type memoryBody struct {
	*bytes.Reader
	data []byte
}

func (b memoryBody) Bytes() []byte { return b.data }

func (m *memory) Body(sum Sum, size int64) (io.ReaderAt, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.bodies[sum]
	if !ok || int64(len(data)) != size {
		return nil, fmt.Errorf("no such body of %d bytes", size)
	}
	if m.plain {
		return bytes.NewReader(data), nil
	}
	return memoryBody{bytes.NewReader(data), data}, nil
}

// stored splits x and opens the result.
func stored(t tester, x []byte, m *memory) *Reader {
	t.Helper()
	var form bytes.Buffer
	if err := Split(bytes.NewReader(x), NewWriter(&form), m.Put); err != nil {
		t.Fatalf("split: %v", err)
	}
	r, err := Open(bytes.NewReader(form.Bytes()), int64(form.Len()), m)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return r
}

// checkLaw is the law: Join(Split(x)) == x.
func checkLaw(t tester, x []byte) {
	t.Helper()
	r := stored(t, x, newMemory())
	if r.Size() != int64(len(x)) {
		t.Errorf("size: got %d, want %d", r.Size(), len(x))
	}
	var joined bytes.Buffer
	if err := Join(&joined, r); err != nil {
		t.Fatalf("join: %v", err)
	}
	if !bytes.Equal(joined.Bytes(), x) {
		t.Fatalf("joined stream differs: %d bytes, want %d", joined.Len(), len(x))
	}
}
