package tarsplit

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash/crc64"
	"io"
	"strings"
)

const (
	jsonName    = 1 << 20 // most bytes of the text of a name; tars have no longer ones
	jsonScalar  = 64      // most bytes of the text of a number
	jsonKey     = 64      // most bytes of a key
	jsonUnknown = 1 << 16 // most bytes of a value of an unknown key
)

// An OpenFunc opens the content of a file by its name in the tar, which can be
// anything: "./a", "/a", "../a".
type OpenFunc = func(name string) (io.ReadCloser, error)

// FromJSON reads the JSON form of a stream, uncompressed, and records the stream
// in w. Each file that is named is opened with open, compared with the size and
// the CRC-64 in the form, and stored with put. The error wraps ErrDamaged when
// the form is malformed or a file is not what it says. Closing w is for the
// caller. Memory does not depend on the size of segments.
func FromJSON(r io.Reader, w *Writer, open OpenFunc, put PutFunc) error {
	j := &jsonReader{in: bufio.NewReaderSize(r, 64<<10), w: w}
	for {
		c, err := j.token()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if c != '{' {
			return j.damaged("an object is expected")
		}
		if err := j.object(); err != nil {
			return err
		}
		if j.kind == jsonFile && j.size > 0 {
			if err := j.putFile(open, put); err != nil {
				return err
			}
		}
		j.count++
	}
}

// A jsonReader reads one object after the other. Payloads of segments go to w
// while they are read, so a segment's type has to come before its payload, as
// every writer of the form has it.
type jsonReader struct {
	in    *bufio.Reader
	w     *Writer
	count int64

	kind, size int64
	name       string
	crc        []byte
	seen       [len(jsonKeys)]bool
	text       []byte // scratch
}

func (j *jsonReader) damaged(what string) error {
	return damaged("JSON form, entry %d: %s", j.count, what)
}

// object reads the rest of an object.
func (j *jsonReader) object() error {
	j.kind, j.size, j.name, j.crc = 0, 0, "", nil
	clear(j.seen[:])
	for first := true; ; first = false {
		c, err := j.inner()
		if err != nil {
			return err
		}
		if c == '}' && first {
			break
		}
		if c != '"' {
			return j.damaged("a key is expected")
		}
		if err := j.member(); err != nil {
			return err
		}
		if c, err = j.inner(); err != nil {
			return err
		}
		if c == '}' {
			break
		}
		if c != ',' {
			return j.damaged("a comma is expected")
		}
	}
	switch {
	case j.kind != jsonFile && j.kind != jsonSegment:
		return j.damaged("its type is neither file nor segment")
	case j.size < 0:
		return j.damaged("its size is negative")
	}
	return nil
}

// jsonKeys are the keys with a meaning.
var jsonKeys = [...]string{"type", "name", "name_raw", "size", "payload"}

// key reads a key, whose quote was read. As in encoding/json its case is of no
// account; that it comes twice is an error here.
func (j *jsonReader) key() (string, error) {
	key, err := j.quoted(jsonKey)
	if err != nil {
		return "", err
	}
	for i, known := range jsonKeys {
		if !strings.EqualFold(key, known) {
			continue
		}
		if j.seen[i] {
			return "", j.damaged("the key " + known + " twice")
		}
		j.seen[i] = true
		return known, nil
	}
	return key, nil
}

// member reads a key, whose quote was read, and its value.
func (j *jsonReader) member() error {
	key, err := j.key()
	if err != nil {
		return err
	}
	c, err := j.inner()
	if err != nil {
		return err
	}
	if c != ':' {
		return j.damaged("a colon is expected")
	}
	if c, err = j.inner(); err != nil {
		return err
	}
	switch {
	case c == '"' && key == "payload":
		return j.payload()
	case c == '"':
		return j.stringValue(key)
	case c == '{' || c == '[':
		return j.damaged("a nested value")
	}
	return j.scalar(key, c)
}

func (j *jsonReader) stringValue(key string) error {
	limit := jsonUnknown
	if key == "name" || key == "name_raw" {
		limit = jsonName * 2
	}
	value, err := j.quoted(limit)
	if err != nil {
		return err
	}
	switch key {
	case "name":
		if j.name == "" { // name_raw goes first
			j.name = value
		}
	case "name_raw":
		raw, err := base64.StdEncoding.DecodeString(value)
		if err != nil {
			return j.damaged("name_raw is not base64")
		}
		if len(raw) > 0 {
			j.name = string(raw)
		}
	case "type", "size":
		return j.damaged("its " + key + " is a string")
	}
	return nil
}

// scalar reads a number, true, false or null of which c was read.
func (j *jsonReader) scalar(key string, c byte) error {
	if err := j.readScalar(c); err != nil {
		return err
	}
	if string(j.text) == "null" {
		return nil
	}
	switch key {
	case "type", "size":
		n, ok := decimal(j.text)
		if !ok || c == '+' {
			return j.damaged("its " + key + " is no number")
		}
		if key == "type" {
			j.kind = n
		} else {
			j.size = n
		}
		return nil
	case "name", "name_raw", "payload":
		return j.damaged("its " + key + " is no string")
	}
	if !json.Valid(j.text) {
		return j.damaged("a malformed value")
	}
	return nil
}

// readScalar reads up to the comma or brace behind a value into j.text.
func (j *jsonReader) readScalar(c byte) error {
	for j.text = j.text[:0]; strings.IndexByte(" \t\r\n,}", c) < 0; {
		if len(j.text) == jsonScalar {
			return j.damaged("a long number")
		}
		j.text = append(j.text, c)
		var err error
		if c, err = j.in.ReadByte(); err != nil {
			return j.readError(err)
		}
	}
	return j.in.UnreadByte()
}

// payload reads a string of base64 whose quote was read: the bytes of a segment,
// or the CRC of a file.
func (j *jsonReader) payload() error {
	text := base64.NewDecoder(base64.StdEncoding, &stringReader{j: j})
	switch j.kind {
	case jsonSegment:
		buf := make([]byte, 32<<10)
		for {
			n, err := text.Read(buf)
			if werr := j.segment(buf[:n]); werr != nil {
				return werr
			}
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return j.payloadError(err)
			}
		}
	case jsonFile:
		crc, err := io.ReadAll(io.LimitReader(text, crc64.Size+1))
		if err != nil {
			return j.payloadError(err)
		}
		if len(crc) > crc64.Size {
			return j.damaged("the checksum is too long")
		}
		j.crc = crc
		return nil
	}
	return j.damaged("a payload before the type")
}

func (j *jsonReader) segment(p []byte) error {
	if len(p) >= zeroRun && isZero(p) {
		return j.w.Zeros(int64(len(p)))
	}
	return j.w.Raw(p)
}

func (j *jsonReader) payloadError(err error) error {
	if _, corrupt := err.(base64.CorruptInputError); corrupt || err == io.ErrUnexpectedEOF {
		return j.damaged("the payload is not base64")
	}
	return err
}

// A stringReader reads the rest of a JSON string. Base64 needs no escapes, but a
// slash may have one.
type stringReader struct {
	j    *jsonReader
	done bool
}

func (s *stringReader) Read(p []byte) (int, error) {
	if s.done {
		return 0, io.EOF
	}
	in := s.j.in
	if _, err := in.Peek(1); err != nil {
		return 0, s.j.readError(err)
	}
	ahead, _ := in.Peek(min(len(p), in.Buffered()))
	if at := bytes.IndexAny(ahead, "\"\\\r\n"); at > 0 {
		ahead = ahead[:at]
	} else if at == 0 {
		return s.special(p)
	}
	n := copy(p, ahead)
	_, _ = in.Discard(n) // it is buffered
	return n, nil
}

// special reads the end of the string or an escaped character.
func (s *stringReader) special(p []byte) (int, error) {
	c, _ := s.j.in.ReadByte() // it is buffered
	if c == '"' {
		s.done = true
		return 0, io.EOF
	}
	if c == '\\' {
		next, err := s.j.in.ReadByte()
		if err != nil {
			return 0, s.j.readError(err)
		}
		if next == '/' {
			p[0] = '/'
			return 1, nil
		}
	}
	return 0, s.j.damaged("the payload is not base64")
}

// quoted reads a string whose first quote was read.
func (j *jsonReader) quoted(limit int) (string, error) {
	j.text = append(j.text[:0], '"')
	for escaped := false; ; {
		c, err := j.in.ReadByte()
		if err != nil {
			return "", j.readError(err)
		}
		if len(j.text) > limit {
			return "", j.damaged("a string is too long")
		}
		j.text = append(j.text, c)
		if c == '"' && !escaped {
			break
		}
		escaped = c == '\\' && !escaped
	}
	var value string
	if err := json.Unmarshal(j.text, &value); err != nil {
		return "", j.damaged("a malformed string")
	}
	return value, nil
}

// token returns the next byte that is no white space.
func (j *jsonReader) token() (byte, error) {
	for {
		c, err := j.in.ReadByte()
		if err != nil || (c != ' ' && c != '\t' && c != '\r' && c != '\n') {
			return c, err
		}
	}
}

// inner is token inside of an object, where the end is an error.
func (j *jsonReader) inner() (byte, error) {
	c, err := j.token()
	return c, j.readError(err)
}

func (j *jsonReader) readError(err error) error {
	if err == io.EOF {
		return j.damaged("it ends too early")
	}
	return err
}

// putFile stores the content of a file and compares it with the entry.
func (j *jsonReader) putFile(open OpenFunc, put PutFunc) error {
	f, err := open(j.name)
	if err != nil {
		return fmt.Errorf("file %q of the layer: %w", j.name, err)
	}
	defer f.Close()
	crc := crc64.New(crcTable)
	content := &countingReader{r: io.TeeReader(io.LimitReader(f, j.size), crc)}
	sum, err := put(content, j.size)
	if content.n < j.size && (err == nil || content.ended) {
		return damaged("JSON form, entry %d: file %q has %d bytes instead of %d", j.count, j.name, content.n, j.size)
	}
	if err != nil {
		return fmt.Errorf("file %q of the layer: %w", j.name, err)
	}
	if n, err := f.Read(make([]byte, 1)); n > 0 || (err != nil && err != io.EOF) {
		return damaged("JSON form, entry %d: file %q has more than %d bytes", j.count, j.name, j.size)
	}
	if !bytes.Equal(crc.Sum(nil), j.crc) {
		return damaged("JSON form, entry %d: file %q has another checksum", j.count, j.name)
	}
	return j.w.Body(sum, j.size)
}

// A countingReader counts what was read and remembers whether the end was.
type countingReader struct {
	r     io.Reader
	n     int64
	ended bool
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.ended = c.ended || err == io.EOF
	return n, err
}
