package fs

import (
	"archive/tar"
	"context"
	"io"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/layerfs/layerfs/internal/storetest"
	"github.com/layerfs/layerfs/layers"
)

// Short names for what the tests here use everywhere.
type (
	memSource = storetest.Source
	member    = storetest.Member
)

var (
	file    = storetest.File
	marshal = storetest.JSON
)

// newImage makes an image of uncompressed layers, bottom first. Images with different authors differ.
func newImage(t testing.TB, author string, tars ...[]byte) *memSource {
	t.Helper()
	list := make([]storetest.Layer, len(tars))
	for i, tar := range tars {
		list[i] = storetest.Plain(tar)
	}
	return storetest.Image(t, author, list...)
}

// mtime is the time of every member.
var mtime = time.Unix(1_600_000_000, 123_456_789)

func dirMember(name string) member { return storetest.Dir(name + "/") }

func special(name string, typ byte, link string) member {
	return member{Header: tar.Header{Name: name, Typeflag: typ, Mode: 0o644, Linkname: link}}
}

// tarOf writes a tar.
func tarOf(t testing.TB, members ...member) []byte {
	t.Helper()
	list := slices.Clone(members)
	for i := range list {
		list[i].ModTime, list[i].Format = mtime, tar.FormatPAX
	}
	return storetest.Tar(t, list...)
}

// newStore makes an empty store, which ends with the test and must then be sound.
func newStore(t testing.TB) *layers.Store {
	t.Helper()
	st, err := layers.Open(t.TempDir()+"/store", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return st
}

// load loads an image under names.
func load(t testing.TB, st *layers.Store, src *memSource, names ...string) *layers.Image {
	t.Helper()
	img, err := st.Load(context.Background(), src, &layers.LoadOptions{Names: names})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// quiet is a logger for what tests provoke.
var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// offline returns a file system on a store without a mount.
func offline(t testing.TB, st *layers.Store) *fileSystem {
	t.Helper()
	set, err := (&Options{IDMap: "none", Logger: quiet}).settle("test")
	if err != nil {
		t.Fatal(err)
	}
	f := newFileSystem(st, set)
	s := &Server{fs: f, keeper: nobody{}}
	f.status.last = f.counters.at(figureStatus)
	f.status.info = func() any { return map[string]int{"renderings": int(f.status.last.Load())} }
	if err := s.prepare(""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.closeLayers)
	return f
}
