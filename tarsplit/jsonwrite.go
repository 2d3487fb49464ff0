package tarsplit

import (
	"encoding/json"
	"hash/crc64"
	"hash/maphash"
	"io"
	"path/filepath"
	"unicode/utf8"
)

// The JSON form is the one of github.com/vbatts/tar-split, which containers/storage
// and docker keep (compressed with gzip) beside each layer: one object in a line,
// either a segment, bytes of the stream, or a file, bytes that are the content
// of the file of that name in the unpacked layer, with its size and CRC-64.
//
// It names bodies by path, so it has no way to say that a path occurs twice, nor
// that what the tar holds of a file is not the file's content: sparse files.
// Such bodies are written as segments; that library reads them well.
const (
	jsonFile    = 1
	jsonSegment = 2

	// jsonPayload is the most that one segment holds.
	jsonPayload = 1 << 20
)

// jsonEntry has the fields in the order in which that library writes them.
type jsonEntry struct {
	Type     int    `json:"type"`
	Name     string `json:"name,omitempty"`
	NameRaw  []byte `json:"name_raw,omitempty"`
	Size     int64  `json:"size,omitempty"`
	Payload  []byte `json:"payload"`
	Position int64  `json:"position"`
}

var crcTable = crc64.MakeTable(crc64.ISO)

// WriteJSON writes the JSON form of the stream of r, uncompressed. It reads all
// bodies, for their CRC-64. For ordinary tars it writes what vbatts/tar-split
// would have written.
func WriteJSON(w io.Writer, r *Reader) error {
	j := &jsonWriter{enc: json.NewEncoder(w), seen: map[uint64]struct{}{}, seed: maphash.MakeSeed()}
	s := newSplitter(io.NewSectionReader(r, 0, r.Size()), j)
	for {
		h, err := s.Next()
		if err != nil {
			if _, isFormat := err.(*FormatError); err != io.EOF && !isFormat {
				return err
			}
			break
		}
		whole := h.BodySize <= r.Size()-s.Offset()
		if err := j.member(s, h, whole); err != nil {
			return err
		}
	}
	if err := s.Drain(nil); err != nil {
		return err
	}
	return j.flush()
}

// A jsonWriter is the sink of a Splitter that goes through the joined stream.
type jsonWriter struct {
	enc      *json.Encoder
	position int64
	segment  []byte

	// seen has hashes of the paths so far. A wrong hit makes a segment of a file:
	// a little larger, not wrong.
	seen map[uint64]struct{}
	seed maphash.Seed

	file *jsonEntry // for Body
}

// member writes the segment that ends with the member's header, and its file,
// unless the stream ends before the whole of it.
func (j *jsonWriter) member(s *Splitter, h *Header, whole bool) error {
	fresh := h.Type != TypeGlobal && j.firstTime(h.Name)
	asFile := fresh && whole && h.IsRegular() && h.Sparse == nil
	if h.BodySize > 0 && !asFile {
		if err := s.rawBody(); err != nil {
			return notFormat(err)
		}
	}
	if err := j.flush(); err != nil {
		return err
	}
	if !fresh {
		return nil
	}
	file := &jsonEntry{Type: jsonFile}
	if utf8.ValidString(h.Name) {
		file.Name = h.Name
	} else {
		file.NameRaw = []byte(h.Name)
	}
	if h.BodySize == 0 || !asFile {
		return j.write(file)
	}
	j.file = file
	return notFormat(s.Body(func(r io.Reader, size int64) (Sum, error) {
		crc := crc64.New(crcTable)
		n, err := io.Copy(crc, r)
		file.Payload, file.Size = crc.Sum(nil), n
		return Sum{}, err
	}))
}

// notFormat drops format errors, which Next will return again.
func notFormat(err error) error {
	if _, isFormat := err.(*FormatError); isFormat {
		return nil
	}
	return err
}

// firstTime reports whether the path was not there before.
func (j *jsonWriter) firstTime(name string) bool {
	h := maphash.String(j.seed, filepath.Clean(name))
	_, known := j.seen[h]
	j.seen[h] = struct{}{}
	return !known
}

func (j *jsonWriter) Raw(p []byte) error {
	for len(p) > 0 {
		n := min(len(p), jsonPayload-len(j.segment))
		j.segment = append(j.segment, p[:n]...)
		p = p[n:]
		if len(j.segment) == jsonPayload {
			if err := j.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (j *jsonWriter) Zeros(n int64) error {
	for n > 0 {
		p := zeros[:min(n, int64(len(zeros)))]
		if err := j.Raw(p); err != nil {
			return err
		}
		n -= int64(len(p))
	}
	return nil
}

func (j *jsonWriter) Body(Sum, int64) error { return j.write(j.file) }

// flush writes what was collected as a segment.
func (j *jsonWriter) flush() error {
	if len(j.segment) == 0 {
		return nil
	}
	err := j.write(&jsonEntry{Type: jsonSegment, Payload: j.segment})
	j.segment = j.segment[:0]
	return err
}

func (j *jsonWriter) write(e *jsonEntry) error {
	e.Position = j.position
	j.position++
	return j.enc.Encode(e)
}
