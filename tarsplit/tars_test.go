package tarsplit

import (
	"archive/tar"
	"bytes"
	"strings"
	"testing"
	"time"
)

// A file is what tarOf makes a member of.
type file struct {
	name, body string
	typ        byte
	link       string
	pax        map[string]string
}

// tarOf writes a tar; its times, owners and modes are fixed.
func tarOf(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{
			Name: f.name, Linkname: f.link, Typeflag: f.typ, Mode: 0o640, Uid: 1000, Gid: 100,
			ModTime: time.Unix(1234567890, 0), Size: int64(len(f.body)), PAXRecords: f.pax,
		}
		if f.typ == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(f.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// smallTar is a tar of a bit of everything.
func smallTar(t testing.TB) []byte {
	return tarOf(
		t,
		file{name: "dir/", typ: tar.TypeDir},
		file{name: "dir/hello", body: "hello, world\n"},
		file{name: "dir/empty"},
		file{name: "dir/link", typ: tar.TypeLink, link: "dir/hello"},
		file{name: "dir/symlink", typ: tar.TypeSymlink, link: "hello"},
		file{name: "dir/block", body: strings.Repeat("x", 512)},
		file{name: strings.Repeat("long/", 60) + "name", body: "same"},
		file{name: "dir/other", body: "same"},
		file{name: "xattr", body: "a", pax: map[string]string{"SCHILY.xattr.user.test": "\x00\x01value", "mtime": "-1.25"}},
		file{name: "dir/hello", body: "the second of this name"},
		file{name: "pipe", typ: tar.TypeFifo},
	)
}
