package wire

import (
	"bytes"
	"encoding/binary"
	"syscall"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// request builds a message.
func request(op uint32, node uint64, body ...any) []byte {
	var b bytes.Buffer
	h := fuse.InHeader{Opcode: op, Unique: 77, NodeId: node}
	binary.Write(&b, binary.NativeEndian, h)
	for _, p := range body {
		if s, ok := p.(string); ok {
			b.WriteString(s + "\x00")
			continue
		}
		binary.Write(&b, binary.NativeEndian, p)
	}
	in := aligned(b.Len())
	copy(in, b.Bytes())
	(*fuse.InHeader)(unsafe.Pointer(&in[0])).Length = uint32(len(in))
	return in
}

type getattrBody struct {
	Flags, Dummy uint32
	Fh           uint64
}

type readBody struct {
	Fh, Offset      uint64
	Size, ReadFlags uint32
	LockOwner       uint64
	Flags, Padding  uint32
}

type pair struct{ A, B uint32 }

func message(head, tail []byte) []byte { return append(append([]byte(nil), head...), tail...) }

// TestHotEqualsRare answers requests both by our decoder and by go-fuse's and wants the same bytes.
func TestHotEqualsRare(t *testing.T) {
	toy := &toy{dirs: 40, files: 300, content: []byte("hello, world")}
	c := newToyConn(toy)
	w := c.workers[0]
	file := uint64(1<<32 | 3<<16 | 7)
	for name, in := range map[string][]byte{
		"lookup":            request(OpLookup, 1, "d3"),
		"lookup file":       request(OpLookup, 5, "f7"),
		"lookup absent":     request(OpLookup, 5, "x"),
		"lookup empty":      request(OpLookup, 5, ""),
		"lookup stale":      request(OpLookup, 1<<40, "x"),
		"getattr":           request(OpGetattr, file, getattrBody{}),
		"getattr stale":     request(OpGetattr, 99999, getattrBody{}),
		"read":              request(OpRead, file, readBody{Size: 4096}),
		"read middle":       request(OpRead, file, readBody{Size: 3, Offset: 4}),
		"read end":          request(OpRead, file, readBody{Size: 3, Offset: 400}),
		"read stale":        request(OpRead, 3, readBody{Size: 3, Offset: 400}),
		"readdir":           request(OpReaddir, 1, readBody{Size: 4096}),
		"readdir small":     request(OpReaddir, 1, readBody{Size: 100}),
		"readdir on":        request(OpReaddir, 3, readBody{Size: 4096, Offset: 17}),
		"readdirplus":       request(OpReaddirplus, 3, readBody{Size: 65536}),
		"readdirplus small": request(OpReaddirplus, 3, readBody{Size: 500}),
		"readdirplus on":    request(OpReaddirplus, 3, readBody{Size: 4096, Offset: 250}),
		"readdirplus end":   request(OpReaddirplus, 3, readBody{Size: 4096, Offset: 5000}),
		"readlink":          request(OpReadlink, 3),
		"statfs":            request(OpStatfs, 1),
	} {
		t.Run(name, func(t *testing.T) {
			head, tail := w.answer(bytes.Clone(in))
			got := message(head, tail)
			out := aligned(MaxRead + 4096)
			n, status := c.rare.HandleRequest([][]byte{bytes.Clone(in)}, [][]byte{out})
			if status != fuse.OK {
				t.Fatalf("go-fuse: %v", status)
			}
			if diff := cmp.Diff(out[:n], got); diff != "" {
				t.Errorf("go-fuse -, ours +:\n%s", diff)
			}
		})
	}
}

func TestXattrSizes(t *testing.T) {
	w := newToyConn(&toy{dirs: 1, files: 1, content: []byte("hello")}).workers[0]
	for _, c := range []struct {
		name string
		in   []byte
		errn int32
		body string
	}{
		{"size", request(OpGetxattr, 1, pair{}, "user.toy"), 0, "\x05\x00\x00\x00\x00\x00\x00\x00"},
		{"value", request(OpGetxattr, 1, pair{A: 5}, "user.toy"), 0, "hello"},
		{"too small", request(OpGetxattr, 1, pair{A: 4}, "user.toy"), -int32(syscall.ERANGE), ""},
		{"none", request(OpGetxattr, 1, pair{A: 4}, "user.none"), -int32(syscall.ENODATA), ""},
		{"list size", request(OpListxattr, 1, pair{}), 0, "\x09\x00\x00\x00\x00\x00\x00\x00"},
		{"list", request(OpListxattr, 1, pair{A: 9}), 0, "user.toy\x00"},
		{"list too small", request(OpListxattr, 1, pair{A: 8}), -int32(syscall.ERANGE), ""},
	} {
		head, tail := w.answer(c.in)
		got := message(head, tail)
		h := (*fuse.OutHeader)(unsafe.Pointer(&got[0]))
		if h.Status != c.errn || string(got[outHeaderSize:]) != c.body || h.Length != uint32(len(got)) || h.Unique != 77 {
			t.Errorf("%s: got %+v %q, want errno %d body %q", c.name, h, got[outHeaderSize:], c.errn, c.body)
		}
	}
}

func TestRefusals(t *testing.T) {
	w := newToyConn(&toy{dirs: 1, files: 1}).workers[0]
	for op, want := range map[uint32]syscall.Errno{
		OpMkdir: syscall.EROFS, OpSetattr: syscall.EROFS, OpCreate: syscall.EROFS, OpWrite: syscall.EROFS,
		OpOpen: syscall.ENOSYS, OpOpendir: syscall.ENOSYS, OpFlush: syscall.ENOSYS, OpAccess: syscall.ENOSYS,
		OpInterrupt: syscall.ENOSYS, 63: syscall.ENOSYS, 99: syscall.ENOSYS, 1 << 31: syscall.ENOSYS,
	} {
		head, _ := w.answer(request(op, 1, [8]uint64{}))
		if got := syscall.Errno(-(*fuse.OutHeader)(unsafe.Pointer(&head[0])).Status); got != want {
			t.Errorf("%s (%d): got %v, want %v", opName(op), op, got, want)
		}
	}
}

func TestForget(t *testing.T) {
	got := map[uint64]uint64{}
	w := newToyConn(&toy{forgotten: func(node, n uint64) { got[node] += n }}).workers[0]
	w.answer(request(OpForget, 9, uint64(3)))
	w.answer(request(OpBatchForget, 0, pair{A: 2}, [4]uint64{9, 4, 8, 1}))
	w.answer(request(OpBatchForget, 0, pair{A: 1 << 31}, [2]uint64{7, 1})) // says more than it holds
	if diff := cmp.Diff(map[uint64]uint64{9: 7, 8: 1, 7: 1}, got); diff != "" {
		t.Error(diff)
	}
}

func TestPanicIsEIO(t *testing.T) {
	w := newToyConn(&toy{}).workers[0]
	head, _ := w.answer(request(OpReadlink, 666))
	if got := (*fuse.OutHeader)(unsafe.Pointer(&head[0])).Status; got != -int32(syscall.EIO) {
		t.Errorf("status %d", got)
	}
}

func TestNoAllocations(t *testing.T) {
	w := newToyConn(&toy{dirs: 9, files: 200, content: make([]byte, 8192)}).workers[0]
	for name, in := range map[string][]byte{
		"lookup":      request(OpLookup, 3, "f17"),
		"getattr":     request(OpGetattr, 3, getattrBody{}),
		"read":        request(OpRead, 1<<32, readBody{Size: 4096}),
		"readdir":     request(OpReaddir, 3, readBody{Size: 4096}),
		"readdirplus": request(OpReaddirplus, 3, readBody{Size: 65536}),
		"getxattr":    request(OpGetxattr, 3, pair{A: 100}, "user.toy"),
		"forget":      request(OpForget, 3, uint64(1)),
	} {
		if n := testing.AllocsPerRun(100, func() { w.answer(in) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// FuzzAnswer gives arbitrary bytes to the decoder: it must not panic, and an answer must say its own length.
func FuzzAnswer(f *testing.F) {
	for op := range uint32(60) {
		f.Add(request(op, 1, [12]uint64{}))
	}
	f.Add(request(OpLookup, 1, "d3"))
	f.Add(request(OpBatchForget, 1, pair{A: 1 << 30}, [2]uint64{1, 1}))
	f.Add(request(OpInit, 0, pair{A: 7, B: 38}, [15]uint32{}))
	c := New(nil, &toy{dirs: 9, files: 20, content: make([]byte, 100)}, newRaw(&toy{dirs: 9, files: 20}), Options{Workers: 1})
	w := c.workers[0]
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) < inHeaderSize {
			return
		}
		in := aligned(len(data))
		copy(in, data)
		head, tail := w.answer(in)
		if head == nil {
			return
		}
		h := (*fuse.OutHeader)(unsafe.Pointer(&head[0]))
		if int(h.Length) != len(head)+len(tail) || h.Status > 0 || h.Status < -4095 {
			t.Errorf("answer of %d bytes says %+v", len(head)+len(tail), h)
		}
		if c.panics.Load() > 0 {
			t.Fatal("a request panicked")
		}
	})
}
