package tarsplit

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// maxLogical is the largest file whose content is compared; maps of sparse files
// can claim more than fits anywhere.
const maxLogical = 8 << 20

// compareWithArchiveTar reads x with archive/tar and with a Splitter, and
// compares members, their content, and where the tar ends or is wrong.
func compareWithArchiveTar(t tester, x []byte) {
	t.Helper()
	tr := tar.NewReader(bytes.NewReader(x))
	s := NewSplitter(bytes.NewReader(x), NewWriter(io.Discard))
	for member := 0; ; member++ {
		want, wantErr := tr.Next()
		got, err := s.Next()
		switch {
		case wantErr == io.EOF || err == io.EOF:
			if wantErr != err {
				t.Fatalf("member %d: got error %v, want %v", member, err, wantErr)
			}
			return
		case err != nil && !isFormatError(err):
			t.Fatalf("member %d: got %v, want a FormatError", member, err)
		case err != nil && wantErr == nil:
			// A map that does not fit the data is found by archive/tar when the
			// content is read.
			if want.Size <= maxLogical {
				if _, readErr := io.Copy(io.Discard, tr); readErr == nil {
					t.Fatalf("member %d: got error %v, want %q", member, err, want.Name)
				}
			}
			return
		case wantErr != nil && err == nil:
			t.Fatalf("member %d: got %q, want error %v", member, got.Name, wantErr)
		case wantErr != nil:
			return
		}
		compareHeaders(t, got, want)
		if !compareContent(t, s, tr, got) {
			return
		}
	}
}

func isFormatError(err error) bool {
	var format *FormatError
	return errors.As(err, &format)
}

func compareHeaders(t tester, got *Header, want *tar.Header) {
	t.Helper()
	if got.Type == TypeGlobal && want.PAXRecords == nil {
		return // archive/tar met an invalid record, in the random order of a map
	}
	type common struct {
		Type                                      byte
		Name, Link                                string
		Mode, Size, UID, GID, Sec, Nsec, Maj, Min int64
	}
	g := common{
		got.Type, got.Name, got.Linkname, got.Mode, got.Size, got.UID, got.GID,
		got.MtimeSec, int64(got.MtimeNsec), got.Devmajor, got.Devminor,
	}
	w := common{
		want.Typeflag, want.Name, want.Linkname, want.Mode, want.Size, int64(want.Uid), int64(want.Gid),
		want.ModTime.Unix(), int64(want.ModTime.Nanosecond()), want.Devmajor, want.Devminor,
	}
	if got.Type == TypeGlobal {
		w.Sec, w.Nsec = 0, 0 // archive/tar gives a zero time.Time
	}
	if diff := cmp.Diff(w, g); diff != "" {
		t.Fatalf("header differs (-archive/tar +ours):\n%s", diff)
	}
	compareXattrs(t, got, want)
}

// compareXattrs compares what both know, the SCHILY records.
func compareXattrs(t tester, got *Header, want *tar.Header) {
	t.Helper()
	has := map[string]string{}
	for _, x := range got.Xattrs {
		if _, twice := has[x.Name]; twice {
			t.Fatalf("xattr %q occurs twice", x.Name)
		}
		has[x.Name] = string(x.Value)
	}
	others := false
	for key, value := range want.PAXRecords {
		others = others || strings.HasPrefix(key, libarchiveXattr)
		if name, found := strings.CutPrefix(key, schilyXattr); found {
			if v, ok := has[name]; !ok || v != value {
				t.Fatalf("xattr %q: got %q, want %q", name, v, value)
			}
			delete(has, name)
		}
	}
	if len(has) > 0 && !others {
		t.Fatalf("xattrs that archive/tar does not have: %q", has)
	}
}

// compareContent reads the content of the current member from both; it reports
// whether reading can go on.
func compareContent(t tester, s *Splitter, tr *tar.Reader, h *Header) bool {
	t.Helper()
	if h.Size > maxLogical || len(h.Name)%4 == 3 {
		return true // without reading a body
	}
	want, wantErr := io.ReadAll(tr)
	var body []byte
	err := s.Body(func(r io.Reader, size int64) (_ Sum, err error) {
		if size != h.BodySize {
			t.Fatalf("body of %d bytes, header says %d", size, h.BodySize)
		}
		body, err = io.ReadAll(r)
		return Sum{}, err
	})
	if wantErr != nil || err != nil {
		if wantErr == nil || !isFormatError(err) {
			t.Fatalf("content of %q: got error %v, want %v", h.Name, err, wantErr)
		}
		return false
	}
	if got := expand(h, body); !bytes.Equal(got, want) {
		t.Fatalf("content of %q: got %d bytes, want %d", h.Name, len(got), len(want))
	}
	return true
}

// expand gives a body the holes of its file.
func expand(h *Header, body []byte) []byte {
	if h.Sparse == nil {
		return body
	}
	content := make([]byte, h.Size)
	for _, e := range h.Sparse {
		body = body[copy(content[e.Offset:e.Offset+e.Length], body):]
	}
	return content
}

func TestAgainstArchiveTar(t *testing.T) {
	eachShared(t, func(t *testing.T, x []byte) { compareWithArchiveTar(t, x) })
	t.Run("small", func(t *testing.T) { compareWithArchiveTar(t, smallTar(t)) })
}
