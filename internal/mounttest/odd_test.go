package mounttest_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/layerfs/layerfs/internal/testenv"
	"github.com/layerfs/layerfs/internal/treetest"
)

// timeless is for comparing stores: what failed may have touched directories.
var timeless = &treetest.Options{Entry: func(_ string, want, got *treetest.Entry) { got.Mtime = want.Mtime }}

// unchanged fails when the store's files are not what they were. What a mount had open
// when it was removed may have gone meanwhile: the mount has freed it.
func (s *store) unchanged(before *treetest.Snapshot) {
	s.t.Helper()
	after := s.snapshot()
	if before.Entries["gc.pending"] != nil {
		for p := range before.Entries {
			dir, _, _ := strings.Cut(p, "/")
			if after.Entries[p] == nil && slices.Contains([]string{"layers", "packs", "objects", "blobs", "gc.pending"}, dir) {
				delete(before.Entries, p)
			}
		}
		for _, p := range []string{"gc.lock", "index.db", "index.journal"} {
			delete(before.Entries, p)
			delete(after.Entries, p)
		}
	}
	report(s.t, "store", treetest.Diff(before, after, timeless))
}

// snapshot is the store's own directory.
func (s *store) snapshot() *treetest.Snapshot {
	s.t.Helper()
	snap, err := treetest.Take(s.root)
	for try := 0; errors.Is(err, fs.ErrNotExist) && try < 10; try++ { // a mount frees something at this moment
		snap, err = treetest.Take(s.root)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	for p := range snap.Entries {
		if p == "index.db.lock" { // it says who holds it
			delete(snap.Entries, p)
		}
		if dir, name, _ := strings.Cut(p, "/"); dir == "tmp" && name != "" {
			s.t.Errorf("left behind: %s", p)
		}
	}
	return snap
}

// appears waits for something that was loaded after mounting; a mount promises it
// within a second, to which a busy machine adds.
func (s *store) appears(path string) {
	s.t.Helper()
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		_, err := os.Lstat(path)
		if err == nil {
			return
		}
		if time.Since(start) > 5*time.Second {
			s.t.Fatalf("not there after %v: %v", time.Since(start), err)
		}
	}
}

// uncompress undoes one compression with the programs of the system; damaged
// data and what is not compressed come back as they are.
func uncompress(data []byte) []byte {
	for program, magic := range map[string]string{"gzip": "\x1f\x8b", "zstd": "\x28\xb5\x2f\xfd", "bzip2": "BZh", "xz": "\xfd7zXZ\x00"} {
		if !bytes.HasPrefix(data, []byte(magic)) && (program != "zstd" || !skippable(data)) {
			continue
		}
		cmd := exec.Command(program, "-dc")
		cmd.Stdin = bytes.NewReader(data)
		if out, err := cmd.Output(); err == nil {
			return out
		}
	}
	return data
}

// skippable says whether data begins with a skippable frame of zstd.
func skippable(data []byte) bool {
	return len(data) > 8 && data[0]>>4 == 5 && bytes.Equal(data[1:4], []byte("\x2a\x4d\x18"))
}

// TestOddLayers loads each unusual tar as the layer of an image. Either it comes
// out bit for bit and can be walked, or there is one clear error and the store is
// what it was.
func TestOddLayers(t *testing.T) {
	testenv.Require(t, "fuse", "gzip", "zstd", "bzip2")
	files, err := filepath.Glob(filepath.Join(testenv.Shared(t), "tars/*/*"))
	if err != nil {
		t.Fatal(err)
	}
	s := newStore(t, nil)
	s.load("-i", filepath.Join(testenv.Shared(t), "images/tiny-busybox.oci.tar"))
	mnt := s.mount()
	before := s.snapshot()
	loaded := 0
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if len(data) == 0 {
			continue
		}
		what := filepath.Base(filepath.Dir(file)) + "/" + filepath.Base(file)
		t.Run(what, func(t *testing.T) {
			s.t = t
			id := fmt.Sprintf("%x", sha256.Sum256(uncompress(data)))
			archive := dockerArchive(t, t.TempDir(), "localhost/odd:1", packed{data, id})
			r := s.run("load", "-q", "-i", archive)
			if r.code != 0 {
				r.refused(t, 1, 5)
				t.Logf("refused: %.300s", r.stderr)
				s.unchanged(before)
				return
			}
			loaded++
			s.appears(imageDir(mnt, "localhost/odd:1"))
			s.appears(filepath.Join(mnt, "layers/sha256", id))
			compareLayer(t, s, mnt, id, nil)
			snap := s.take(filepath.Join(imageDir(mnt, "localhost/odd:1"), "rootfs"))
			report(t, "rootfs", snap.Problems)
			report(t, "rootfs", leaked(snap))
			s.ok("rmi", "localhost/odd:1")
			s.ok("gc")
			s.checkClean()
		})
		s.t = t
		before = s.snapshot()
	}
	s.t = t
	if loaded < len(files)/2 {
		t.Errorf("only %d of %d were loaded", loaded, len(files))
	}
	s.checkClean()
}

// leaked lists what belongs to the form of layers and never to a tree.
func leaked(s *treetest.Snapshot) []string {
	var lines []string
	for _, p := range s.Paths() {
		if slices.ContainsFunc(strings.Split(p, "/"), func(n string) bool { return strings.HasPrefix(n, ".wh.") }) {
			lines = append(lines, fmt.Sprintf("%q is in the tree", p))
		}
		for name := range s.Entries[p].Xattrs {
			if treetest.Private(name) {
				lines = append(lines, fmt.Sprintf("%q has %s", p, name))
			}
		}
	}
	return lines
}
