package archive

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

var (
	// ErrNotArchive is returned by Open when the content is no archive of images. The
	// error says what it looks like.
	ErrNotArchive = errors.New("not an image archive")
	// ErrUnsupported is returned for formats that are known but cannot be read.
	ErrUnsupported = errors.New("format is not supported")
	// ErrDamaged is returned when an archive is truncated, breaks the rules of its
	// format or contradicts itself.
	ErrDamaged = errors.New("archive is damaged")
	// ErrVerification is returned when content does not match its digest or size.
	ErrVerification = errors.New("verification failed")
	// ErrTooLarge is returned when something exceeds a limit, be it one of this package
	// or Options.MaxBytes.
	ErrTooLarge = errors.New("too large")
	// ErrNoImage is returned by Select when no image is left, and by Open when an
	// archive lists none.
	ErrNoImage = errors.New("no image")
)

// Options change how Open works; nil means the defaults.
type Options struct {
	// TempDir holds the copy of an archive that cannot be read in place; "" means
	// the system's. The copy has no name there and vanishes with Close.
	TempDir string
	// Stdin is read for the path "-"; nil means os.Stdin.
	Stdin io.Reader
	// MaxBytes limits what an archive compressed as a whole, or one layer that had
	// to be measured, may unpack to; 0 means no limit.
	MaxBytes int64
}

// An Archive is an open file or directory that holds images. Its methods, and those
// of its sources, may be called from several goroutines.
type Archive struct {
	name   string // for messages
	format Format
	files  container
	images []Image
	max    int64 // Options.MaxBytes
	sizes  sizeCache
}

// An Image is one image, or artifact, of an archive.
type Image struct {
	// Names are normalized references with a tag (or a digest), without doubles.
	Names []string
	// RefName is the annotation org.opencontainers.image.ref.name as it is in an OCI
	// layout, where it often is a bare tag.
	RefName string
	// Platform is what the index or the config says; nil when neither says anything.
	Platform *ocispec.Platform
	// ID is the digest of the config, which identifies an image.
	ID digest.Digest
	// Artifact is set when this is something other than an image in an image's clothes:
	// a signature, an SBOM, a chart.
	Artifact bool
	// Source gives the image's bytes until the archive is closed. It implements
	// layers.Source.
	Source *Source

	group string // images of one multi-platform index have the same
}

// Independent reports whether the archive lists the image, or artifact, by itself and
// not within an index of several.
func (i *Image) Independent() bool { return i.group == "" }

// A container is where the files of an archive lie: a tar or a directory.
type container interface {
	// open opens a file by its slash-separated name. An error that wraps
	// fs.ErrNotExist means there is none.
	open(name string) (*file, error)
	// member names a file for messages.
	member(name string) string
	Close() error
}

// A file is one file of a container.
type file struct {
	*io.SectionReader
	closer io.Closer // nil: nothing to close
}

// Close implements io.Closer.
func (f *file) Close() error {
	if f.closer == nil {
		return nil
	}
	return f.closer.Close()
}

// Open opens the archive at path: a file, an OCI layout directory, a directory of the
// dir: transport of containers tools, or "-" for
// Options.Stdin. The caller closes it.
//
// It returns ErrNotArchive, ErrUnsupported, ErrDamaged, ErrVerification, ErrTooLarge or
// ErrNoImage for content that cannot be used, or the error of the file system.
func Open(path string, o *Options) (*Archive, error) {
	if o == nil {
		o = &Options{}
	}
	a := &Archive{name: path, max: o.MaxBytes}
	if path == "-" {
		a.name = "standard input"
	}
	if err := a.open(path, o); err != nil {
		if a.files != nil {
			a.files.Close() // read only; the error that counts is the other
		}
		return nil, err
	}
	return a, nil
}

func (a *Archive) open(path string, o *Options) error {
	if fi, err := os.Stat(path); path != "-" && err == nil && fi.IsDir() {
		d, err := openLayoutDir(path)
		if err != nil {
			return err
		}
		if d.isSkopeoDir() {
			sd := &skopeoDir{layoutDir: d}
			a.files, a.format = sd, FormatSkopeoDir
			return a.readSkopeoDir(sd)
		}
		a.files, a.format = d, FormatOCIDir
		return a.readOCI()
	}
	t, err := openTar(path, a.name, o)
	if err != nil {
		return err
	}
	a.files = t
	switch {
	case t.has("index.json") && t.has("oci-layout"):
		a.format = FormatOCIArchive
		return a.readOCI()
	case t.has("manifest.json"):
		a.format = FormatDockerArchive
		return a.readDocker(nil)
	}
	return t.whatElse()
}

// Format returns how the archive is laid out. An archive of docker 25 or newer,
// which is both, counts as FormatOCIArchive.
func (a *Archive) Format() Format { return a.format }

// Images returns the images in the order of the archive. The caller must not change
// the slice.
func (a *Archive) Images() []Image { return a.images }

// Close closes the archive; its sources are useless afterwards.
func (a *Archive) Close() error { return a.files.Close() }

// errorf makes an error about the archive as a whole.
func (a *Archive) errorf(format string, args ...any) error {
	return fmt.Errorf("%s: "+format, append([]any{a.name}, args...)...)
}

const (
	// maxDocument limits every JSON document: registries refuse manifests above 4 MiB.
	maxDocument = 8 << 20
	// maxObjects and maxValues limit what is in one, because "{}," makes a descriptor
	// of two hundred bytes.
	maxObjects = 100_000
	maxValues  = 500_000
)

// document reads a small file whole. An error that wraps fs.ErrNotExist means there
// is none.
func (a *Archive) document(name string) ([]byte, error) {
	f, err := a.files.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if f.Size() > maxDocument {
		return nil, fmt.Errorf("%s: %w: %d bytes, a document may have %d", a.files.member(name), ErrTooLarge, f.Size(), maxDocument)
	}
	data := make([]byte, f.Size())
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", a.files.member(name), ErrDamaged, noEOF(err))
	}
	if n := bytes.Count(data, []byte{'{'}); n > maxObjects {
		return nil, fmt.Errorf("%s: %w: %d JSON objects, a document may have %d", a.files.member(name), ErrTooLarge, n, maxObjects)
	}
	if n := bytes.Count(data, []byte{','}); n > maxValues {
		return nil, fmt.Errorf("%s: %w: %d JSON values, a document may have %d", a.files.member(name), ErrTooLarge, n, maxValues)
	}
	return data, nil
}

// verified reads the document that desc describes and checks its size and digest.
func (a *Archive) verified(desc ocispec.Descriptor) ([]byte, error) {
	name, err := blobName(desc.Digest)
	if err != nil {
		return nil, a.errorf("%w: %w", ErrDamaged, err)
	}
	data, err := a.document(name)
	if err != nil {
		return nil, err
	}
	if int64(len(data)) != desc.Size {
		hint := ""
		if linkText.Match(data) {
			hint = "; it looks like a symbolic link that a checkout or copy turned into a text file"
		}
		return nil, fmt.Errorf("%s: %w: it has %d bytes, but its descriptor says %d%s",
			a.files.member(name), ErrVerification, len(data), desc.Size, hint)
	}
	if got := digest.FromBytes(data); got != desc.Digest {
		return nil, fmt.Errorf("%s: %w: it has the digest %s; the archive is corrupt or was tampered with",
			a.files.member(name), ErrVerification, got)
	}
	return data, nil
}

// linkText is what git leaves of a link on a file system without links.
var linkText = regexp.MustCompile(`^(\.\./){1,8}[A-Za-z0-9._/-]{1,200}$`)

// blobName returns where a layout keeps a blob. The digest comes from a document and
// is checked, so that nothing but hex digits gets into the name.
func blobName(d digest.Digest) (string, error) {
	if err := d.Validate(); err != nil {
		return "", fmt.Errorf("digest %q: %w", string(d), err)
	}
	if d.Algorithm() != digest.SHA256 {
		return "", fmt.Errorf("digest %s: only sha256 is supported", d)
	}
	return "blobs/sha256/" + d.Encoded(), nil
}

// isMissing says whether err comes from a file that is not in the archive.
func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
