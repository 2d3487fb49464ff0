package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// AddToDir adds an image to an OCI layout directory, or makes one where nothing or an
// empty directory is. What else the layout holds stays; its image with the same reference
// name, if there is one, loses the name, as with containers tools. Blobs appear before the
// index names them, synced. Several may add at once.
func AddToDir(ctx context.Context, dir string, img SaveImage, o *WriteOptions) error {
	if o == nil {
		o = &WriteOptions{}
	}
	err := WriteDir(ctx, dir, []SaveImage{img}, o)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	lock, err := lockLayout(dir)
	if err != nil {
		return err
	}
	defer lock.Close() // it was only locked
	if _, err := readLayoutIndex(dir); err != nil {
		return err
	}
	temp, err := os.MkdirTemp(dir, ".layerfs-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp) // what is in it now nobody needs
	s := &addSink{dirSink: newDirSink(ctx, temp), dir: dir}
	defer s.close()
	descs, err := newOCIWriter(s, o).image(ctx, &img)
	if err != nil {
		return err
	}
	if err := s.publish(); err != nil {
		return err
	}
	return addToIndex(dir, s.dirSink, descs)
}

// lockLayout waits until nobody else of us adds to the layout.
func lockLayout(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for err = unix.EINTR; errors.Is(err, unix.EINTR); {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return f, nil
}

// An addSink writes blobs that a layout does not have into a directory beside them.
type addSink struct {
	*dirSink
	dir   string
	names []string // of what publish is to rename
}

func (s *addSink) put(name string, size int64, from io.WriterTo) error {
	if s.has(name) {
		return nil
	}
	return s.dirSink.put(s.note(name), size, from)
}

func (s *addSink) begin() (part, error) {
	f, err := s.temporary()
	return &filePart{File: f, adopt: s.adopt, named: true}, err
}

func (s *addSink) adopt(name string, size int64, f *os.File) error {
	if s.has(name) {
		return f.Close()
	}
	return s.dirSink.adopt(s.note(name), size, f)
}

// note remembers a blob and returns its name in the directory of the sink.
func (s *addSink) note(name string) string {
	s.names = append(s.names, name)
	return filepath.Base(name)
}

// has reports whether the layout has the blob, with the right content.
func (s *addSink) has(name string) bool {
	f, err := os.Open(filepath.Join(s.dir, filepath.FromSlash(name)))
	if err != nil {
		return false
	}
	defer f.Close() // it was only read
	got, err := digest.FromReader(f)
	return err == nil && got.Encoded() == filepath.Base(name)
}

// publish gives the blobs their names.
func (s *addSink) publish() error {
	if err := s.flush(); err != nil {
		return err
	}
	blobs := filepath.Join(s.dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o777); err != nil {
		return err
	}
	for _, name := range s.names {
		base := filepath.Base(name)
		if err := os.Rename(filepath.Join(s.root, base), filepath.Join(blobs, base)); err != nil {
			return err
		}
	}
	return syncDir(blobs)
}

// A layoutIndex is an index.json of which unknown parts are kept as they are.
type layoutIndex struct {
	fields    map[string]json.RawMessage
	manifests []json.RawMessage
}

// readLayoutIndex reads the index of a layout.
func readLayoutIndex(dir string) (*layoutIndex, error) {
	d, err := openLayoutDir(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close() // it was only read
	if !d.has(ocispec.ImageIndexFile) {
		return nil, fmt.Errorf("%s: %w: it is a directory of the dir: transport, which holds one image", dir, ErrNotArchive)
	}
	raw, err := os.ReadFile(filepath.Join(dir, ocispec.ImageIndexFile))
	if err != nil {
		return nil, err
	}
	x := &layoutIndex{}
	err = json.Unmarshal(raw, &x.fields)
	if err == nil && x.fields["manifests"] != nil {
		err = json.Unmarshal(x.fields["manifests"], &x.manifests)
	}
	if err != nil || x.fields == nil {
		return nil, fmt.Errorf("%s: %w: it is no JSON object with a list of manifests", d.member(ocispec.ImageIndexFile), ErrDamaged)
	}
	return x, nil
}

// add puts a descriptor into the index in place of those that it makes superfluous.
func (x *layoutIndex) add(desc ocispec.Descriptor) error {
	raw, err := json.Marshal(desc)
	if err != nil {
		return err
	}
	name := desc.Annotations[ocispec.AnnotationRefName]
	var kept []json.RawMessage
	for _, m := range x.manifests {
		var old ocispec.Descriptor
		if json.Unmarshal(m, &old) != nil {
			kept = append(kept, m)
			continue
		}
		oldName := old.Annotations[ocispec.AnnotationRefName]
		if old.Digest == desc.Digest && (oldName == name || oldName == "") {
			continue
		}
		if name != "" && oldName == name {
			if m, err = withoutName(m, old); err != nil {
				return err
			}
		}
		kept = append(kept, m)
	}
	x.manifests = append(kept, raw)
	return nil
}

// withoutName takes the reference name from a descriptor.
func withoutName(raw json.RawMessage, d ocispec.Descriptor) (json.RawMessage, error) {
	var fields map[string]any
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, err
	}
	delete(d.Annotations, ocispec.AnnotationRefName)
	delete(d.Annotations, annotationImageName)
	if fields["annotations"] = d.Annotations; len(d.Annotations) == 0 {
		delete(fields, "annotations")
	}
	fields["size"] = d.Size // as a number that is whole
	return json.Marshal(fields)
}

// addToIndex replaces the index of a layout by one with more images, through a sink.
func addToIndex(dir string, s *dirSink, descs []ocispec.Descriptor) error {
	x, err := readLayoutIndex(dir) // again: tools that know no lock may have added something
	if err != nil {
		return err
	}
	for _, desc := range descs {
		if err := x.add(desc); err != nil {
			return err
		}
	}
	if x.fields["manifests"], err = json.Marshal(x.manifests); err != nil {
		return err
	}
	text, err := json.Marshal(x.fields)
	if err != nil {
		return err
	}
	if err := errors.Join(putDocument(s, ocispec.ImageIndexFile, text), s.flush()); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(s.root, ocispec.ImageIndexFile), filepath.Join(dir, ocispec.ImageIndexFile)); err != nil {
		return err
	}
	return syncDir(dir)
}
