package mounttest_test

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/layerfs/layerfs/internal/testenv"
)

// TestDamagedArchives truncates archives and turns bits of them over, at places
// that change from run to run; the seed is printed.
func TestDamagedArchives(t *testing.T) {
	testenv.Require(t, "fuse")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	images := filepath.Join(testenv.Shared(t), "images")
	for _, name := range []string{"tiny-busybox.oci.tar", "tiny-busybox.docker.tar", "alpine.docker25.tar"} {
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join(images, name))
			if err != nil {
				t.Fatal(err)
			}
			s := newStore(t, nil)
			s.load("--name", "localhost/good:1", "-i", filepath.Join(images, "alpine.oci.tar"))
			before := s.snapshot()
			bad := filepath.Join(t.TempDir(), "bad.tar")
			write := func(data []byte) {
				if err := os.WriteFile(bad, data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for _, n := range []int{0, 1, 511, 512, 1024, rnd.IntN(len(data)), rnd.IntN(len(data)), len(data) / 2, len(data) * 9 / 10} {
				write(data[:n])
				r := s.run("load", "-q", "-i", bad)
				r.refused(t, 1, 5)
				s.unchanged(before)
			}
			for range 12 {
				place := rnd.IntN(len(data))
				damaged := bytes.Clone(data)
				damaged[place] ^= 1 << rnd.IntN(8)
				write(damaged)
				// A bit of padding or of a name nobody needs may not matter.
				if r := s.run("load", "-q", "--name", "localhost/damaged:1", "-i", bad); r.code != 0 {
					r.refused(t, 1, 5)
					s.unchanged(before)
				} else {
					s.ok("rmi", "localhost/damaged:1")
					s.ok("gc")
					before = s.snapshot()
				}
			}
			s.checkClean()
		})
	}
}

// TestDamagedLayout puts into a layout what its names do not promise: other bytes,
// fewer of them, none, and links that lead out of it.
func TestDamagedLayout(t *testing.T) {
	good := filepath.Join(testenv.Shared(t), "images/alpine.zstd3.oci")
	blobs, err := filepath.Glob(filepath.Join(good, "blobs/sha256/*"))
	if err != nil || len(blobs) != 3 {
		t.Fatalf("%q %v", blobs, err)
	}
	secret := filepath.Join(t.TempDir(), "secret")
	s := newStore(t, nil)
	s.load("-i", archiveOf(t, newTar().file("good", "1")))
	before := s.snapshot()
	for what, change := range map[string]func(name string, data []byte) error{
		"another byte": func(name string, data []byte) error {
			data[len(data)/2] ^= 1
			return os.WriteFile(name, data, 0o600)
		},
		"truncated": func(name string, data []byte) error { return os.WriteFile(name, data[:len(data)-1], 0o600) },
		"longer":    func(name string, data []byte) error { return os.WriteFile(name, append(data, 0), 0o600) },
		"missing":   func(name string, _ []byte) error { return os.Remove(name) },
		"symlink out": func(name string, data []byte) error {
			if err := os.WriteFile(secret, data, 0o600); err != nil {
				return err
			}
			return errors.Join(os.Remove(name), os.Symlink(secret, name))
		},
		"text that names a file outside": func(name string, data []byte) error {
			if err := os.WriteFile(secret, data, 0o600); err != nil {
				return err
			}
			rel, err := filepath.Rel(filepath.Dir(name), secret)
			return errors.Join(err, os.WriteFile(name, []byte(rel), 0o600))
		},
	} {
		for i, blob := range blobs {
			t.Run(fmt.Sprintf("%s/%d", what, i), func(t *testing.T) {
				s.t = t
				layout := filepath.Join(t.TempDir(), "layout")
				copyTree(t, good, layout)
				data, err := os.ReadFile(blob)
				if err != nil {
					t.Fatal(err)
				}
				if err := change(filepath.Join(layout, "blobs/sha256", filepath.Base(blob)), data); err != nil {
					t.Fatal(err)
				}
				r := s.run("load", "-q", "-i", layout)
				if what == "symlink out" && r.code == 0 {
					s.ok("rmi", "--force", "alpine:3.20")
					s.ok("gc")
					t.Skip("a symlink of the owner's own layout is followed, and verified")
				}
				r.refused(t, 1, 3, 5)
				s.unchanged(before)
			})
		}
	}
	s.t = t
	s.checkClean()
}

// TestWrongDiffID: the config promises another layer than there is.
func TestWrongDiffID(t *testing.T) {
	s := newStore(t, nil)
	s.load("-i", archiveOf(t, newTar().file("good", "1")))
	before := s.snapshot()
	data := newTar().file("a", "1").bytes()
	archive := dockerArchive(t, t.TempDir(), "localhost/wrong:1", packed{data, strings.Repeat("ab", 32)})
	r := s.run("load", "-q", "-i", archive)
	r.refused(t, 5)
	if !strings.Contains(r.stderr, "abababab") {
		t.Errorf("the error does not name the layer: %s", r.stderr)
	}
	s.unchanged(before)
}

func archiveOf(t testing.TB, layers ...*tarball) string {
	t.Helper()
	archive, _ := imageOf(t, layersOf(layers...)...)
	return archive
}

// TestBomb loads a layer of 4 GiB of zeros, packed ten times over, with a limit,
// and one that is packed once.
func TestBomb(t *testing.T) {
	s := newStore(t, nil)
	s.load("-i", archiveOf(t, newTar().file("good", "1")))
	before := s.snapshot()
	data := gzipped(t, io.LimitReader(zeros{}, 1<<30))
	for _, name := range []string{"once", "ten times"} {
		if name == "ten times" {
			for range 9 {
				data = gzipped(t, bytes.NewReader(data))
			}
		}
		archive := dockerArchive(t, t.TempDir(), "localhost/bomb:1", packed{data, fmt.Sprintf("%x", sha256.Sum256(data))})
		r := s.run("load", "-q", "--max-size", "10MB", "-i", archive)
		r.refused(t, 1, 5)
		t.Logf("%s: %s", name, r.stderr)
		s.unchanged(before)
	}
	// A header that promises far more than there is.
	huge, err := os.ReadFile(filepath.Join(testenv.Shared(t), "tars/odd/size-huge-header.tar"))
	if err != nil {
		t.Fatal(err)
	}
	archive := dockerArchive(t, t.TempDir(), "localhost/bomb:1", plain(huge))
	s.run("load", "-q", "--max-size", "10MB", "-i", archive).refused(t, 1, 5)
	s.unchanged(before)
}

// zeros reads as zeros without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func gzipped(t testing.TB, r io.Reader) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(w, r); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestUsage: what is wrong on the command line or not there, by exit code.
func TestUsage(t *testing.T) {
	s := newStore(t, nil)
	s.load("-i", archiveOf(t, newTar().file("good", "1")))
	before := s.snapshot()
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("hello\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		code int
		args []string
	}{
		{3, []string{"load", "-q", "-i", "/no/such/file"}},
		{1, []string{"load", "-q", "-i", text}},
		{1, []string{"load", "-q", "-i", t.TempDir()}},
		{2, []string{"load", "-q", "--no-such-flag"}},
		{2, []string{"no-such-verb"}},
		{2, []string{"inspect"}},
		{3, []string{"inspect", "no/such:image"}},
		{3, []string{"rmi", "no/such:image"}},
		{3, []string{"diff", "sha256:" + strings.Repeat("0", 64)}},
		{3, []string{"tag", "no/such:image", "a"}},
		{2, []string{"tag", "localhost/synthetic:1", "bad name"}},
		{3, []string{"umount", t.TempDir()}},
		{3, []string{"mount", "/no/such/directory"}},
		{2, []string{"mount", "-o", "auto_unmount", t.TempDir()}},
		{2, []string{"mount", "-o", "no_such_option", t.TempDir()}},
	} {
		s.run(c.args...).refused(t, c.code)
	}
	s.unchanged(before)
}
