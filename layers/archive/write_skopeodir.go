package archive

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// WriteSkopeoDir writes an image as a directory of the dir: transport of containers
// tools, and returns the descriptor of its manifest. The directory must not exist yet or
// be empty; it appears whole and synced or not at all.
func WriteSkopeoDir(ctx context.Context, dir string, img SaveImage, o *WriteOptions) (desc ocispec.Descriptor, err error) {
	if o == nil {
		o = &WriteOptions{}
	}
	err = writeWholeDir(ctx, dir, nil, func(s *dirSink) error {
		w := newOCIWriter(hexSink{s}, o)
		descs, err := w.image(ctx, &img)
		if err != nil {
			return err
		}
		desc = descs[0]
		if err := s.flush(); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(s.root, desc.Digest.Encoded()), filepath.Join(s.root, manifestFile)); err != nil {
			return err
		}
		return putDocument(s, versionFile, []byte("Directory Transport Version: 1.1\n"))
	})
	return desc, err
}

// A hexSink gives blobs the names that they have in the dir: transport.
type hexSink struct{ *dirSink }

func hexName(name string) (string, error) {
	hex, ok := strings.CutPrefix(name, "blobs/sha256/")
	if !ok {
		return "", fmt.Errorf("%s: %w: it is no blob", name, ErrUnsupported)
	}
	return hex, nil
}

func (s hexSink) put(name string, size int64, from io.WriterTo) error {
	hex, err := hexName(name)
	if err != nil {
		return err
	}
	return s.dirSink.put(hex, size, from)
}

func (s hexSink) begin() (part, error) {
	f, err := s.temporary()
	return &filePart{File: f, adopt: s.adopt, named: true}, err
}

func (s hexSink) adopt(name string, size int64, f *os.File) error {
	hex, err := hexName(name)
	if err != nil {
		f.Close()
		return err
	}
	return s.dirSink.adopt(hex, size, f)
}
