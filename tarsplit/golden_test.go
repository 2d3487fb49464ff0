package tarsplit

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write testdata anew")

// golden compares data with a file of testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	name = filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(name, got, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if want := readFile(t, name); !bytes.Equal(got, want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

// TestGoldenForm: a change of the stored form is a change of a text. The text is
// of what is in the zstd frames, which other versions of the encoder compress
// in another way.
func TestGoldenForm(t *testing.T) {
	x := readFile(t, "testdata/small.tar")
	var form bytes.Buffer
	if err := Split(bytes.NewReader(x), NewWriter(&form), newMemory().Put); err != nil {
		t.Fatal(err)
	}
	golden(t, "small.dump", dump(t, form.Bytes()))
}

// TestOldForms: what was written once can be read for ever. The file is never
// written anew; another version of the format gets another one.
func TestOldForms(t *testing.T) {
	x := readFile(t, "testdata/small.tar")
	form := readFile(t, "testdata/small-v1.split")
	m := newMemory()
	if err := Split(bytes.NewReader(x), NewWriter(new(bytes.Buffer)), m.Put); err != nil {
		t.Fatal(err)
	}
	r, err := Open(bytes.NewReader(form), int64(len(form)), m)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Verify(); err != nil {
		t.Error(err)
	}
	var joined bytes.Buffer
	if err := Join(&joined, r); err != nil || !bytes.Equal(joined.Bytes(), x) {
		t.Errorf("joined %d bytes, %v; want %d", joined.Len(), err, len(x))
	}
}

// dump shows a stored form of a few groups as text.
func dump(t *testing.T, form []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	fmt.Fprintf(&out, "header %q\n", form[:headerSize])
	r, err := Open(bytes.NewReader(form), int64(len(form)), nil)
	if err != nil {
		t.Fatal(err)
	}
	err = r.eachGroup(func(g *group) error {
		fmt.Fprintf(&out, "group stream %d to %d, sums %d bytes, payload head %x\n", g.start, g.end, len(g.sums), g.payload[:payloadHead])
		n := binary.LittleEndian.Uint32(g.payload[4:])
		fmt.Fprintf(&out, "records %x\n", g.payload[payloadHead:payloadHead+n])
		for i, s := range g.spans {
			length := g.spanEnd(i) - s.start
			switch s.kind {
			case recordRaw:
				fmt.Fprintf(&out, "%6d raw   %d %q\n", s.start, length, bytes.TrimRight(g.rawBytes(i, 0)[:min(length, 60)], "\x00"))
			case recordBody:
				fmt.Fprintf(&out, "%6d body  %d %x\n", s.start, length, g.sum(s))
			default:
				fmt.Fprintf(&out, "%6d zeros %d\n", s.start, length)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	index := form[r.groups[len(r.groups)-1].file:]
	size := binary.LittleEndian.Uint64(index[len(index)-footerSize:])
	count := binary.LittleEndian.Uint32(index[len(index)-8:])
	fmt.Fprintf(&out, "index %x, %d bytes, size %d, groups %d\n", index[:4], len(index), size, count)
	return out.Bytes()
}
