package archive

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/layers"
)

// uncheckedBlob is a blob whose writer believes in it.
type uncheckedBlob struct {
	data []byte
	desc ocispec.Descriptor
	t    *testing.T
}

func (b uncheckedBlob) Size() int64           { return b.desc.Size }
func (b uncheckedBlob) Close() error          { return nil }
func (b uncheckedBlob) Digest() digest.Digest { return b.desc.Digest }

func (b uncheckedBlob) WriteTo(io.Writer) (int64, error) {
	b.t.Error("verified by the writer, although the file can be read back")
	return 0, io.ErrUnexpectedEOF
}

func (b uncheckedBlob) WriteUnverified(w io.Writer) (int64, error) {
	for p := b.data; len(p) > 0; {
		n, err := w.Write(p[:min(len(p), 1<<20+7)])
		if err != nil {
			return 0, err
		}
		p = p[n:]
	}
	return b.desc.Size, nil
}

// What is written to a file is verified there, several layers at once, and a wrong or
// missing byte in any of them is found.
func TestCheckedBesideWriting(t *testing.T) {
	const count, size = 5, 3<<20 + 11
	for _, tt := range []struct {
		name  string
		spoil func(list [][]byte)
		want  error
	}{
		{"right", func([][]byte) {}, nil},
		{"first byte", func(l [][]byte) { l[0][0] ^= 1 }, layers.ErrDamaged},
		{"last byte", func(l [][]byte) { l[count-1][size-1] ^= 1 }, layers.ErrDamaged},
		{"middle", func(l [][]byte) { l[2][1<<20] ^= 1 }, layers.ErrDamaged},
		{"short", func(l [][]byte) { l[3] = l[3][:size-1] }, layers.ErrDamaged},
		{"much too short", func(l [][]byte) { l[3] = l[3][:10] }, layers.ErrDamaged},
	} {
		l := newLayout(t)
		var list [][]byte
		for i := range count {
			list = append(list, bytes.Repeat([]byte{byte(i), 1, 2}, size)[:size])
		}
		_, img := l.artifact(list...)
		for i := range list {
			list[i] = bytes.Clone(list[i])
		}
		tt.spoil(list)
		for i := range img.Layers {
			b := uncheckedBlob{list[i], img.Layers[i].Desc, t}
			img.Layers[i].Blob = func(context.Context) (Blob, error) { return b, nil }
		}
		for _, format := range []Format{FormatOCIArchive, FormatOCIDir} {
			dir := t.TempDir()
			path := filepath.Join(dir, "out")
			var err error
			if format == FormatOCIDir {
				err = WriteDir(t.Context(), path, []SaveImage{img}, nil)
			} else {
				err = writeFile(t, path, img)
			}
			if !errors.Is(err, tt.want) {
				t.Errorf("%s, %v: got %v, want %v", tt.name, format, err, tt.want)
			}
			if err != nil {
				if left, _ := os.ReadDir(dir); format == FormatOCIDir && len(left) > 0 {
					t.Errorf("%s: left %v", tt.name, left)
				}
				continue
			}
			for _, layer := range img.Layers {
				if data, err := readBlob(mustOpen(t, path).Images()[0].Source, layer.Desc); err != nil || digest.FromBytes(data) != layer.Desc.Digest {
					t.Errorf("%s, %v: another blob, %v", tt.name, format, err)
				}
			}
		}
	}
}

func writeFile(t *testing.T, path string, img SaveImage) error {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return Write(t.Context(), f, FormatOCIArchive, []SaveImage{img}, nil)
}

// What cannot be read back is verified while it is written.
func TestCanCheck(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for flags, want := range map[int]bool{os.O_RDWR: true, os.O_WRONLY: false, os.O_RDWR | os.O_APPEND: false} {
		f, err := os.OpenFile(path, flags|os.O_CREATE, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		if got := canCheck(f); got != want {
			t.Errorf("flags %o: got %v", flags, got)
		}
		f.Close()
	}
}
