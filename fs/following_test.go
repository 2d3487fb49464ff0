package fs

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/layerfs/layerfs/internal/testenv"
)

// TestFilesReadInOrder counts the requests of a program that reads all files of a directory.
func TestFilesReadInOrder(t *testing.T) {
	testenv.Require(t, "fuse")
	const files = 600
	st := newStore(t)
	load(t, st, newImage(t, "ordered", manyFiles(t, files)), "ordered:1")
	s := serving(t, func() (*Server, error) {
		return MountImage(st, "ordered:1", testenv.Mountpoint(t, nil), &Options{Logger: quiet})
	})
	dir := filepath.Join(s.Mountpoint(), "d")
	list, err := os.ReadDir(dir)
	if err != nil || len(list) != files {
		t.Fatal(len(list), err)
	}
	for _, e := range list {
		if _, err := e.Info(); err != nil {
			t.Fatal(err)
		}
	}
	for i, e := range list {
		got, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil || !bytes.Equal(got, contentOf(i)) {
			t.Fatalf("%s: %d bytes, %v", e.Name(), len(got), err)
		}
		time.Sleep(20 * time.Microsecond) // somebody does something with it
	}
	if n := s.Stats().Requests["read"]; n > files*3/4 {
		t.Errorf("%d requests for the content of %d files", n, files)
	}
}

func manyFiles(t *testing.T, n int) []byte {
	members := []member{dirMember("d")}
	for i := range n {
		members = append(members, file(fmt.Sprintf("d/%04d", i), string(contentOf(i))))
	}
	return tarOf(t, members...)
}

func contentOf(i int) []byte { return bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 50+37*(i%100)) }
