package graphroot

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

var (
	// ErrDriver is returned for a graph root of another driver than overlay, whose
	// layers are not kept as directories of changes.
	ErrDriver = errors.New("storage driver is not supported")
	// ErrInvalid is returned for a graph root that cannot be understood.
	ErrInvalid = errors.New("invalid graph root")
)

// Limits of what is read at once: documents of images, and lists of records.
const (
	maxDocument = 8 << 20
	maxRecords  = 256 << 20
)

// A Root is a graph root.
type Root struct{ dir string }

// Is reports whether dir is a graph root of containers/storage. It returns ErrDriver,
// with the name of the driver, for one that this package cannot read.
func Is(dir string) (bool, error) {
	for _, name := range []string{"overlay-images", "overlay-layers"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil && info.IsDir() {
			return true, nil
		}
	}
	others, err := filepath.Glob(filepath.Join(escapeGlob(dir), "*-images"))
	if err != nil || len(others) == 0 {
		return false, nil
	}
	driver := strings.TrimSuffix(filepath.Base(others[0]), "-images")
	return true, fmt.Errorf("%w: %s uses %s, only overlay can be read; load its images from an archive (podman save)", ErrDriver, dir, driver)
}

// escapeGlob makes a path stand for itself in a pattern.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// New returns the graph root in dir.
func New(dir string) *Root { return &Root{dir} }

// Dir returns its directory.
func (r *Root) Dir() string { return r.dir }

// An Image is the record of an image.
type Image struct {
	ID       string
	Names    []string
	Layer    string // ID of the topmost
	Created  time.Time
	DataKeys []string `json:"big-data-names"`
}

// A Layer is the record of a layer.
type Layer struct {
	ID               string
	Parent           string
	Created          time.Time
	DiffID           digest.Digest `json:"diff-digest"`
	Size             int64         `json:"diff-size"`
	CompressedDigest digest.Digest `json:"compressed-diff-digest"`
	CompressedSize   int64         `json:"compressed-size"`
	Compression      int           // 2: gzip, 4: zstd
}

// Records are the lists at one moment.
type Records struct {
	Images []Image
	Layers map[string]Layer // by ID
}

// lists are the files with the records, below the root.
var lists = []string{"overlay-images/images.json", "overlay-layers/layers.json"}

// Mark returns a text that differs whenever the lists do.
func (r *Root) Mark() (string, error) {
	var b strings.Builder
	for _, name := range lists {
		var st unix.Stat_t
		err := unix.Stat(filepath.Join(r.dir, name), &st)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", &fs.PathError{Op: "stat", Path: filepath.Join(r.dir, name), Err: err}
		}
		fmt.Fprintf(&b, "%d %d %d.%09d\n", st.Ino, st.Size, st.Mtim.Sec, st.Mtim.Nsec)
	}
	return b.String(), nil
}

// Read reads the lists. An absent one is empty, as in a graph root without images.
func (r *Root) Read() (*Records, error) {
	out := &Records{Layers: map[string]Layer{}}
	if err := r.decode(lists[0], &out.Images); err != nil {
		return nil, err
	}
	var layers []Layer
	if err := r.decode(lists[1], &layers); err != nil {
		return nil, err
	}
	for _, l := range layers {
		out.Layers[l.ID] = l
	}
	return out, nil
}

func (r *Root) decode(name string, v any) error {
	raw, err := r.read(name, maxRecords)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrInvalid, filepath.Join(r.dir, name), err)
	}
	return nil
}

func (r *Root) read(name string, limit int64) ([]byte, error) {
	f, err := os.Open(filepath.Join(r.dir, name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(raw)) > limit {
		err = fmt.Errorf("%w: %s has more than %d bytes", ErrInvalid, f.Name(), limit)
	}
	return raw, err
}

// Stack returns the layers from the bottom up to the one with the ID top; none for
// an empty ID.
func (r *Records) Stack(top string) ([]Layer, error) {
	var stack []Layer
	for id := top; id != ""; {
		l, ok := r.Layers[id]
		if !ok || len(stack) > len(r.Layers) {
			return nil, fmt.Errorf("%w: layer %s has no record, or is its own ancestor", ErrInvalid, id)
		}
		stack = append(stack, l)
		id = l.Parent
	}
	for i, j := 0, len(stack)-1; i < j; i, j = i+1, j-1 {
		stack[i], stack[j] = stack[j], stack[i]
	}
	return stack, nil
}

// Document returns the document that an image has under a key.
func (r *Root) Document(image, key string) ([]byte, error) {
	if !isID(image) {
		return nil, fmt.Errorf("%w: image %q", ErrInvalid, image)
	}
	return r.read(filepath.Join("overlay-images", image, dataName(key)), maxDocument)
}

// dataName is the name of the file of a document: its key, if that is a simple name,
// or the key in base64.
func dataName(key string) string {
	if strings.Trim(key, "abcdefghijklmnopqrstuvwxyz0123456789.") == "" && strings.Trim(key, ".") != "" {
		return key
	}
	return "=" + strings.ReplaceAll(base64.StdEncoding.EncodeToString([]byte(key)), "/", "_") // a name with a slash is no file
}

// isID tells the names that containers/storage gives from paths.
func isID(id string) bool {
	return id != "" && strings.Trim(id, "0123456789abcdef") == ""
}

// OpenFile opens a regular file of a layer by its name in the layer's tar. Links are
// not followed, and nothing outside of the layer is opened.
func (r *Root) OpenFile(layer, name string) (*os.File, error) {
	if !isID(layer) {
		return nil, fmt.Errorf("%w: layer %q", ErrInvalid, layer)
	}
	dir := filepath.Join(r.dir, "overlay", layer, "diff")
	d, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(d)
	rel := strings.TrimPrefix(filepath.Clean("/"+name), "/")
	fd, err := unix.Openat2(d, rel, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: filepath.Join(dir, rel), Err: err}
	}
	f := os.NewFile(uintptr(fd), filepath.Join(dir, rel))
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("%w: %s is no regular file", ErrInvalid, f.Name())
	}
	return f, nil
}

// Has reports whether the files of a layer are there.
func (r *Root) Has(layer string) bool {
	if !isID(layer) {
		return false
	}
	_, err := os.Stat(filepath.Join(r.dir, "overlay", layer, "diff"))
	return err == nil
}
