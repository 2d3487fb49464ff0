package archive

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/internal/testenv"
)

var (
	amd64 = ocispec.Platform{OS: "linux", Architecture: "amd64"}
	arm64 = ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}
	armv6 = ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v6"}
	armv7 = ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}
)

// simple is an OCI archive with one image.
func simple(t testing.TB) []byte {
	l := newLayout(t)
	l.list(l.image(amd64, makeTar(t, member{name: "etc/motd", data: []byte("hello")})), "example.com/a/b:1")
	return makeTar(t, l.members()...)
}

// dockerMembers is a classic docker-archive; edit changes manifest.json.
func dockerMembers(t testing.TB, edit func(*dockerItem), layers ...[]byte) []member {
	cfg := config(t, amd64, layers...)
	item := dockerItem{Config: digest.FromBytes(cfg).Encoded() + ".json", RepoTags: []string{"a/b:1"}}
	members := []member{{name: item.Config, data: cfg}}
	for _, l := range layers {
		name := digest.FromBytes(l).Encoded() + ".tar"
		item.Layers = append(item.Layers, name)
		members = append(members, member{name: name, data: l})
	}
	if edit != nil {
		edit(&item)
	}
	return append(members, member{name: "manifest.json", data: toJSON(t, []dockerItem{item})})
}

func TestOuterCompression(t *testing.T) {
	data := simple(t)
	for _, prog := range []string{"cat", "gzip", "zstd", "bzip2", "xz"} {
		testenv.Require(t, prog)
		args := []string{"-c"}
		if prog == "cat" {
			args = nil
		}
		cmd := exec.Command(prog, args...)
		cmd.Stdin = bytes.NewReader(data)
		packed, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "misleading.zip")
		if err := os.WriteFile(path, packed, 0o644); err != nil {
			t.Fatal(err)
		}
		saveImage(t, mustOpen(t, path).Images()[0])
		a, err := openBytes(t, packed)
		if err != nil {
			t.Fatalf("%s, stdin: %v", prog, err)
		}
		saveImage(t, a.Images()[0])
	}
}

func TestFIFO(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	data := simple(t)
	go func() {
		if f, err := os.OpenFile(path, os.O_WRONLY, 0); err == nil {
			f.Write(data)
			f.Close()
		}
	}()
	saveImage(t, mustOpen(t, path).Images()[0])
}

// The temporary copy has no name.
func TestTempDirStaysEmpty(t *testing.T) {
	dir := t.TempDir()
	a, err := Open("-", &Options{Stdin: bytes.NewReader(simple(t)), TempDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if list, err := os.ReadDir(dir); err != nil || len(list) != 0 {
		t.Errorf("left %v, %v", list, err)
	}
}

func TestMaxBytes(t *testing.T) {
	bomb := gzipped(t, makeTar(t, member{name: "a.json", data: make([]byte, 1<<20)}))
	_, err := Open("-", &Options{Stdin: bytes.NewReader(bomb), TempDir: t.TempDir(), MaxBytes: 1 << 19})
	if !errors.Is(err, ErrTooLarge) {
		t.Errorf("outer: got %v, want ErrTooLarge", err)
	}
	layer := makeTar(t, member{name: "zeros", data: make([]byte, 1<<20)})
	members := dockerMembers(t, nil, layer)
	members[1].data = gzipped(t, layer)
	a, err := Open("-", &Options{Stdin: bytes.NewReader(makeTar(t, members...)), TempDir: t.TempDir(), MaxBytes: 1 << 19})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if _, _, err := a.Images()[0].Source.Manifest(context.Background()); !errors.Is(err, ErrTooLarge) {
		t.Errorf("layer: got %v, want ErrTooLarge", err)
	}
}

func TestNotArchive(t *testing.T) {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	rootfs := makeTar(t, member{name: "./etc/passwd", data: []byte("root")}, member{name: "./usr/bin/sh"})
	for want, data := range map[string][]byte{
		"empty file":                           nil,
		"ELF":                                  self[:5000],
		"gzip of something that is no tar":     gzipped(t, []byte("hello")),
		"gzip of gzip data; unpack it once":    gzipped(t, gzipped(t, rootfs)),
		"no tar: an empty file":                gzipped(t, nil),
		"text file":                            []byte("hello\n"),
		"zip":                                  []byte("PK\x03\x04...."),
		"JSON":                                 []byte("  {}"),
		"HTML":                                 []byte("<!doctype html>"),
		"unknown kind":                         {1, 2, 3},
		"layerfs import":                       rootfs,
		"tar without members":                  make([]byte, 1024),
		`starts with "readme"`:                 makeTar(t, member{name: "readme"}),
		"neither oci-layout nor manifest.json": makeTar(t, member{name: "index.json", data: []byte("{}")}),
		"SIF":                                  append(append(bytes.Repeat([]byte("#"), 32), "SIF_MAGIC"...), make([]byte, 600)...),
	} {
		if _, err := openBytes(t, data); !errors.Is(err, ErrNotArchive) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want ErrNotArchive with %q", err, want)
		}
	}
	old := makeTar(t, member{name: "repositories", data: []byte("{}")}, member{name: "abc/layer.tar"})
	if _, err := openBytes(t, old); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "before 1.10") {
		t.Errorf("old docker: got %v", err)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: got %v", err)
	}
}

func TestNotLayout(t *testing.T) {
	for want, members := range map[string][]member{
		"neither":            {{name: "x"}},
		"schema 1":           {{name: "manifest.json", data: []byte(`{"schemaVersion": 1}`)}, {name: "version"}},
		"end of JSON":        {{name: "manifest.json"}, {name: "version"}},
		"unpacked":           {{name: "manifest.json"}},
		"without index.json": {{name: "oci-layout"}},
		"not oci-layout":     {{name: "index.json"}},
		"layout version":     {{name: "index.json"}, {name: "oci-layout", data: []byte(`{"imageLayoutVersion":"2.0.0"}`)}},
		"out of the layout":  {{name: "index.json", link: "/etc/passwd"}, {name: "oci-layout", data: []byte(`{"imageLayoutVersion":"1.0.0"}`)}},
	} {
		_, err := Open(unpackTo(t, t.TempDir(), members), nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// Links out of the layout are refused, whatever component they stand for, and so
// are FIFOs.
func TestLayoutLinks(t *testing.T) {
	l := newLayout(t)
	l.list(l.image(amd64, makeTar(t)), "a:1")
	good := unpackTo(t, t.TempDir(), l.members())
	for _, name := range []string{"blobs", "blobs/sha256"} {
		dir := unpackTo(t, t.TempDir(), l.members())
		if err := errors.Join(os.RemoveAll(filepath.Join(dir, name)), os.Symlink(filepath.Join(good, name), filepath.Join(dir, name))); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, nil); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s is a link: got %v", name, err)
		}
	}
	blob := filepath.Join(good, l.blobs[0].name)
	if err := errors.Join(os.Remove(blob), unix.Mkfifo(blob, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(good, nil); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("FIFO: got %v", err)
	}
}

// A truncated archive is always noticed, and the error says where.
func TestTruncated(t *testing.T) {
	l := newLayout(t)
	l.list(l.image(amd64, makeTar(t, member{name: "x", data: []byte("hello")})), "a:1")
	for name, data := range map[string][]byte{
		"oci":    makeTar(t, l.members()...),
		"docker": makeTar(t, dockerMembers(t, nil, makeTar(t, member{name: "x"}))...),
	} {
		end := len(data) - 1024 // without the end blocks all is there
		for n := 512; n < end; n += 90 {
			a, err := openBytes(t, data[:n])
			if err == nil {
				saveImage(t, a.Images()[0]) // only padding was cut off
			} else if n > 1024 && (!errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "standard input")) {
				t.Errorf("%s: cut at %d of %d: %v", name, n, len(data), err)
			}
		}
	}
	_, err := openBytes(t, simple(t)[:1100])
	if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), `in or after member "blobs/sha256/`) || !strings.Contains(err.Error(), "offset 1100") {
		t.Errorf("got %v, want the member and the offset", err)
	}
	packed := gzipped(t, simple(t))
	if _, err = openBytes(t, packed[:len(packed)-20]); !errors.Is(err, ErrDamaged) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("gzip: got %v", err)
	}
}

func TestDockerArchive(t *testing.T) {
	one, two := makeTar(t, member{name: "one"}), makeTar(t, member{name: "two", data: make([]byte, 5000)})
	members := dockerMembers(t, nil, one, two, one)
	tests := map[string]func() []member{
		"plain": func() []member { return members },
		"gzip layers": func() []member {
			m := slices.Clone(members)
			m[1].data, m[2].data = gzipped(t, one), gzipped(t, two)
			return m
		},
		"dot slash": func() []member {
			m := slices.Clone(members)
			for i := range m {
				m[i].name = "./" + m[i].name
			}
			return m
		},
		"symbolic links": func() []member {
			m := dockerMembers(t, func(i *dockerItem) {
				i.Layers = []string{"l1/layer.tar", "l2/layer.tar", "l3/layer.tar"}
			}, one, two, one)
			return append(m, member{name: "l1/layer.tar", link: "../l3/layer.tar"}, member{name: "l3/layer.tar", link: "../" + members[1].name},
				member{name: "l2/layer.tar", hard: members[2].name})
		},
		"ggcr": func() []member {
			cfg := config(t, amd64, one, two, one)
			name := digest.FromBytes(cfg).String()
			return []member{
				{name: name, data: cfg},
				{name: "1.tar.gz", data: gzipped(t, one)},
				{name: "2.tar.gz", data: gzipped(t, two)},
				{name: "manifest.json", data: toJSON(t, []dockerItem{{Config: name, RepoTags: []string{"a/b:1"}, Layers: []string{"1.tar.gz", "2.tar.gz", "1.tar.gz"}}})},
			}
		},
	}
	var want digest.Digest
	for _, name := range []string{"plain", "gzip layers", "dot slash", "symbolic links", "ggcr"} {
		a := mustOpenTar(t, tests[name]()...)
		if a.Format() != FormatDockerArchive || len(a.Images()) != 1 || !slices.Equal(a.Images()[0].Names, []string{"docker.io/a/b:1"}) {
			t.Errorf("%s: got %v, %+v", name, a.Format(), a.Images())
		}
		// The made-up manifest depends on the content alone.
		if got := saveImage(t, a.Images()[0]); want == "" {
			want = got.Desc.Digest
		} else if got.Desc.Digest != want {
			t.Errorf("%s: manifest %s, want %s", name, got.Desc.Digest, want)
		}
	}
}

// docker 25 and newer write both kinds of documents; the OCI manifests are real,
// and the names are docker's.
func TestDocker25(t *testing.T) {
	layer := makeTar(t, member{name: "x"})
	l := newLayout(t)
	desc := l.image(amd64, layer)
	other := l.image(arm64, makeTar(t, member{name: "y"}))
	l.list(desc, "1")
	l.list(other, "")
	cfg := func(p ocispec.Platform, layer []byte) string {
		return "blobs/sha256/" + digest.FromBytes(config(t, p, layer)).Encoded()
	}
	items := []dockerItem{
		{Config: cfg(amd64, layer), RepoTags: []string{"a:1", "b:2", "a:1"}, Layers: []string{"blobs/sha256/" + digest.FromBytes(layer).Encoded()}},
	}
	a := mustOpenTar(t, l.members(member{name: "manifest.json", data: toJSON(t, items)})...)
	if len(a.Images()) != 2 || !slices.Equal(a.Images()[0].Names, []string{"docker.io/library/a:1", "docker.io/library/b:2"}) || a.Images()[1].Names != nil {
		t.Fatalf("got %+v", a.Images())
	}
	if got := saveImage(t, a.Images()[0]); got.Desc.Digest != desc.Digest {
		t.Errorf("manifest %s, want %s", got.Desc.Digest, desc.Digest)
	}
}
