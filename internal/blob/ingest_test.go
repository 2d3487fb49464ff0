package blob

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
)

func TestRoundTrip(t *testing.T) {
	s, tmp := newStore(t, nil)
	x := newIndex()
	bodies := mixed(2000)
	in := mustIngest(t, s, tmp, x, bodies)
	if objects, packs := mustBeWhole(t, s); objects != 4 || packs != 1 {
		t.Errorf("%d objects, %d packs", objects, packs)
	}
	var total int64
	for _, want := range bodies {
		total += int64(len(want))
		b := x.bodies[sumOf(want)]
		if (b.Place.Pack == 0) != (len(want) >= ObjectMin) {
			t.Errorf("body of %d bytes is at %+v", len(want), b.Place)
		}
		if got, err := readBody(s, b); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("body of %d bytes comes back as %d: %v", len(want), len(got), err)
		}
	}
	if n, bytes, r, rb := in.Stats(); n != int64(len(bodies)) || bytes != total || r != 0 || rb != 0 {
		t.Errorf("statistics %d, %d, %d, %d", n, bytes, r, rb)
	}
	in = mustIngest(t, s, tmp, x, append(bodies, bodies...))
	if n, bytes, r, rb := in.Stats(); n != 0 || bytes != 0 || r != 2*int64(len(bodies)) || rb != 2*total {
		t.Errorf("statistics of the second import: %d, %d, %d, %d", n, bytes, r, rb)
	}
	if objects, packs := mustBeWhole(t, s); objects != 4 || packs != 1 {
		t.Errorf("after the second import %d objects, %d packs", objects, packs)
	}
}

// TestTarOrder checks that bodies lie in a pack in the order in which they came.
func TestTarOrder(t *testing.T) {
	s, tmp := newStore(t, nil)
	x := newIndex()
	var bodies [][]byte
	for i := range 3000 {
		bodies = append(bodies, body(uint64(i), 2000+i))
	}
	mustIngest(t, s, tmp, x, bodies)
	var end int64
	for i, b := range bodies {
		p := x.bodies[sumOf(b)]
		if p.Place.Offset != end {
			t.Fatalf("body %d is at %d, want %d", i, p.Place.Offset, end)
		}
		end += p.Size
	}
}

func TestHoles(t *testing.T) {
	s, tmp := newStore(t, nil)
	x := newIndex()
	for _, size := range []int{ObjectMin, wholeMax, wholeMax + 100, 3*wholeMax + 100} {
		for _, data := range []int{0, size / 2, size - 1} {
			b := make([]byte, size)
			b[data] = 1
			mustIngest(t, s, tmp, x, [][]byte{b})
			var st syscall.Stat_t
			if err := syscall.Stat(s.objectPath(sumOf(b)), &st); err != nil {
				t.Fatal(err)
			}
			if st.Size != int64(size) || st.Blocks*512 > 2*holeSize {
				t.Errorf("%d bytes with one at %d: size %d, %d bytes of disk", size, data, st.Size, st.Blocks*512)
			}
		}
		mustIngest(t, s, tmp, x, [][]byte{make([]byte, size)})
	}
	x.verify(t, s)
}

// TestInput gives too little input, and goes on afterwards.
func TestInput(t *testing.T) {
	s, tmp := newStore(t, nil)
	x := newIndex()
	in, err := s.NewIngest(tmp, x.known)
	if err != nil {
		t.Fatal(err)
	}
	w := in.Writer()
	broken := errors.New("broken input")
	for _, size := range []int{1, 100, ObjectMin, wholeMax, wholeMax + 1, 2*wholeMax + 5} {
		b := body(uint64(size), size)
		for _, c := range []struct {
			r    io.Reader
			want error
		}{
			{bytes.NewReader(b[1:]), io.ErrUnexpectedEOF},
			{bytes.NewReader(nil), io.ErrUnexpectedEOF},
			{io.MultiReader(bytes.NewReader(b[1:]), iotest.ErrReader(broken)), broken},
		} {
			if _, err := w.Put(c.r, int64(size)); !errors.Is(err, c.want) {
				t.Errorf("size %d: %v, want %v", size, err, c.want)
			}
		}
		r := bytes.NewReader(append(b, "more"...))
		sum, err := w.Put(iotest.HalfReader(r), int64(size))
		if err != nil || sum != sumOf(b) || r.Len() != 4 {
			t.Errorf("size %d: %d bytes left, %v", size, r.Len(), err)
		}
	}
	for _, size := range []int64{0, -1} {
		if _, err := w.Put(bytes.NewReader(nil), size); err == nil {
			t.Errorf("size %d: no error", size)
		}
	}
	if err := in.Commit(x.register); err == nil {
		t.Error("commit with an open writer: no error")
	}
	if err := errors.Join(w.Close(), w.Close(), in.Commit(x.register), in.Abort()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Put(bytes.NewReader([]byte{1}), 1); err == nil {
		t.Error("put after close: no error")
	}
	if err := in.Commit(x.register); err == nil {
		t.Error("second commit: no error")
	}
	mustBeEmpty(t, tmp)
	if len(x.bodies) != 6 {
		t.Errorf("%d bodies", len(x.bodies))
	}
	x.verify(t, s)
}

func TestAbort(t *testing.T) {
	s, tmp := newStore(t, nil)
	in, err := s.NewIngest(tmp, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := in.Writer()
	for _, b := range mixed(1000) {
		if _, err := w.Put(bytes.NewReader(b), int64(len(b))); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), in.Abort(), in.Abort()); err != nil {
		t.Fatal(err)
	}
	mustBeEmpty(t, tmp)
	if objects, packs := mustBeWhole(t, s); objects != 0 || packs != 0 {
		t.Errorf("%d objects, %d packs", objects, packs)
	}
}

// putAll feeds bodies, beginning at a different one for each worker.
func putAll(in *Ingest, worker int, bodies [][]byte) error {
	w := in.Writer()
	for i := range bodies {
		b := bodies[(i+worker*len(bodies)/4)%len(bodies)]
		if _, err := w.Put(bytes.NewReader(b), int64(len(b))); err != nil {
			return errors.Join(err, w.Close())
		}
	}
	return w.Close()
}

// TestWriters has four writers put the same bodies into one ingest at once.
func TestWriters(t *testing.T) {
	s, tmp := newStore(t, nil)
	x := newIndex()
	bodies := mixed(500)
	in, err := s.NewIngest(tmp, x.known)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			if err := putAll(in, worker, bodies); err != nil {
				t.Error(err)
			}
			in.Stats()
		})
	}
	wg.Wait()
	if err := in.Commit(x.register); err != nil {
		t.Fatal(err)
	}
	mustBeEmpty(t, tmp)
	x.verify(t, s)
	if n, _, r, _ := in.Stats(); n != int64(len(bodies)) || r != 3*n {
		t.Errorf("%d new, %d reused bodies", n, r)
	}
	size := int64(0)
	for _, b := range x.bodies {
		if b.Place.Pack != 0 {
			size += b.Size
		}
	}
	if err := s.WalkPacks(func(id PackID, got int64) error {
		if got != size {
			t.Errorf("pack has %d bytes, the bodies in it %d", got, size)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// TestLost has two ingests put overlapping bodies before either commits.
func TestLost(t *testing.T) {
	s, tmp := newStore(t, nil)
	x := newIndex()
	all := mixed(600)
	var ins []*Ingest
	for _, bodies := range [][][]byte{all[:400], all[100:], all[:400]} {
		in, err := s.NewIngest(tmp, x.known)
		if err != nil {
			t.Fatal(err)
		}
		if err := putAll(in, 0, bodies); err != nil {
			t.Fatal(err)
		}
		ins = append(ins, in)
	}
	for _, in := range ins {
		if err := in.Commit(x.register); err != nil {
			t.Fatal(err)
		}
	}
	mustBeEmpty(t, tmp)
	x.verify(t, s)
	if len(x.bodies) != len(all) {
		t.Errorf("%d of %d bodies", len(x.bodies), len(all))
	}
	if _, packs := mustBeWhole(t, s); packs != 2 {
		t.Errorf("%d packs, want 2: the third ingest has nothing of its own", packs)
	}
	if n, _, r, _ := ins[1].Stats(); n != int64(len(all)-400) || r != 300 {
		t.Errorf("second ingest: %d new, %d reused", n, r)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(s.packPath(ins[1].packID), &st); err != nil {
		t.Fatal(err)
	}
	if st.Blocks*512 > st.Size/2 {
		t.Errorf("the pack of %d bytes still uses %d", st.Size, st.Blocks*512)
	}
}

// TestProcesses imports the same bodies from two processes at once. They share
// an index that is a directory.
func TestProcesses(t *testing.T) {
	const env = "LAYERFS_TEST_BLOB_STORE"
	if root := os.Getenv(env); root != "" {
		importInChild(t, root)
		return
	}
	root := t.TempDir()
	s, _ := newStoreAt(t, root, nil)
	if err := os.Mkdir(root+"/index", 0o700); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			cmd := exec.Command(os.Args[0], "-test.run=^TestProcesses$")
			cmd.Env = append(os.Environ(), env+"="+root)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	wg.Wait()
	for _, b := range mixed(300) {
		pl, err := dirIndex(root + "/index").place(sumOf(b))
		if err == nil {
			err = s.VerifyBody(sumOf(b), int64(len(b)), pl)
		}
		if err != nil {
			t.Error(err)
		}
	}
	for _, path := range files(t, root) {
		if strings.HasPrefix(path, root+"/tmp") {
			t.Errorf("left: %s", path)
		}
	}
	mustBeWhole(t, s)
}

func importInChild(t *testing.T, root string) {
	s, err := Open(root, nil)
	if err != nil {
		t.Fatal(err)
	}
	tmp, err := os.MkdirTemp(root+"/tmp", "child")
	if err != nil {
		t.Fatal(err)
	}
	x := dirIndex(root + "/index")
	in, err := s.NewIngest(tmp, x.known)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(putAll(in, 0, mixed(300)), in.Commit(x.register)); err != nil {
		t.Fatal(err)
	}
}

// dirIndex is an index that processes share: a file for each body.
type dirIndex string

func (x dirIndex) path(sum Sum) string { return string(x) + "/" + digestOf("body", sum) }

func (x dirIndex) place(sum Sum) (Place, error) {
	name, err := os.Readlink(x.path(sum))
	id, _ := parsePackID(name[:min(16, len(name))])
	if id == 0 || err != nil {
		return Place{}, err
	}
	off, err := strconv.ParseInt(name[17:], 10, 64)
	return Place{Pack: id, Offset: off}, err
}

func (x dirIndex) known(sums []Sum) ([]bool, error) {
	found := make([]bool, len(sums))
	for i, sum := range sums {
		_, err := os.Lstat(x.path(sum))
		found[i] = err == nil
	}
	return found, nil
}

func (x dirIndex) register(bodies []Placed) ([]bool, error) {
	kept := make([]bool, len(bodies))
	for i, b := range bodies {
		err := os.Symlink(b.Place.Pack.String()+"+"+strconv.FormatInt(b.Place.Offset, 10), x.path(b.Sum))
		if err != nil && !errors.Is(err, os.ErrExist) {
			return nil, err
		}
		kept[i] = err == nil
	}
	return kept, nil
}
