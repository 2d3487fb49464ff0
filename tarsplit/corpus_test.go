package tarsplit

import (
	"archive/tar"
	"bytes"
	"compress/bzip2"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/layerfs/layerfs/internal/testenv"
)

// goTestdata returns the files of the standard library's tar tests.
func goTestdata(t testing.TB) []string {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Skipf("go env GOROOT: %v", err)
	}
	files, _ := filepath.Glob(filepath.Join(strings.TrimSpace(string(root)), "src/archive/tar/testdata/*"))
	if len(files) == 0 {
		t.Skip("the Go toolchain comes without the test data of archive/tar")
	}
	return files
}

// sharedFiles returns all regular files below a directory of the shared data.
func sharedFiles(t testing.TB, dir string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(filepath.Join(testenv.Shared(t), dir), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// eachStream calls fn for the bytes of the file and, when they are compressed,
// for what is in them, as far as that can be read.
func eachStream(t *testing.T, name string, data []byte, fn func(t *testing.T, stream []byte)) {
	t.Run(name, func(t *testing.T) {
		fn(t, data)
		if inner := decompress(data); inner != nil {
			t.Run("decompressed", func(t *testing.T) { fn(t, inner) })
		}
	})
}

func decompress(data []byte) []byte {
	var r io.Reader
	var err error
	switch {
	case bytes.HasPrefix(data, []byte("\x1f\x8b")):
		r, err = gzip.NewReader(bytes.NewReader(data))
	case bytes.HasPrefix(data, []byte("BZh")):
		r = bzip2.NewReader(bytes.NewReader(data))
	case bytes.HasPrefix(data, []byte("\x28\xb5\x2f\xfd")):
		r, err = zstd.NewReader(bytes.NewReader(data), zstd.WithDecoderConcurrency(1))
	}
	if r == nil || err != nil {
		return nil
	}
	out, _ := io.ReadAll(r) // some are truncated on purpose
	return out
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// eachShared calls fn for every stream there is: Go's test data, the shared
// tars, and all blobs of the shared images with the archives around them.
func eachShared(t *testing.T, fn func(t *testing.T, stream []byte)) {
	t.Run("go", func(t *testing.T) {
		for _, f := range goTestdata(t) {
			eachStream(t, filepath.Base(f), readFile(t, f), fn)
		}
	})
	t.Run("tars", func(t *testing.T) {
		for _, f := range sharedFiles(t, "tars") {
			eachStream(t, filepath.Base(f), readFile(t, f), fn)
		}
	})
	t.Run("images", func(t *testing.T) {
		for _, f := range sharedFiles(t, "images") {
			data := readFile(t, f)
			eachStream(t, filepath.Base(f), data, fn)
			if strings.HasSuffix(f, ".tar") {
				eachMember(t, data, fn)
			}
		}
	})
}

// eachMember calls fn for the files in an image archive: layers, configs.
func eachMember(t *testing.T, archive []byte, fn func(t *testing.T, stream []byte)) {
	for tr := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		eachStream(t, filepath.Base(h.Name), data, fn)
	}
}
