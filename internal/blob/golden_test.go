package blob

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/layerfs/layerfs/internal/disk"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestCommitOrder records every disk operation of ingests. A change of
// testdata/commit.golden is a change of what survives a crash.
func TestCommitOrder(t *testing.T) {
	var out strings.Builder
	for _, c := range []struct {
		name   string
		bodies [][]byte
		index  func(*fakeIndex)
	}{
		{
			name: "two small bodies, one of them twice, and an object",
			bodies: [][]byte{
				[]byte("first"), []byte("second"), []byte("first"), body(1, ObjectMin),
			},
		},
		{
			name: "many objects, one of them streamed and with a hole in the middle",
			bodies: [][]byte{
				[]byte("small"), body(11, ObjectMin), body(12, ObjectMin), body(13, ObjectMin), body(14, ObjectMin),
				body(15, ObjectMin), body(16, ObjectMin), body(17, ObjectMin), body(18, ObjectMin),
				append(append(body(5, wholeMax/2), make([]byte, holeSize)...), body(6, wholeMax)...),
			},
		},
		{
			name:   "only small bodies, which somebody else registers first",
			bodies: [][]byte{[]byte("third"), []byte("fourth")},
			index: func(x *fakeIndex) {
				for _, s := range []string{"third", "fourth"} {
					x.add([]byte(s), Place{Pack: 1})
				}
			},
		},
		{
			name:   "a streamed body that is known",
			bodies: [][]byte{body(7, wholeMax+1)},
			index:  func(x *fakeIndex) { x.add(body(7, wholeMax+1), Place{}) },
		},
	} {
		fmt.Fprintf(&out, "# %s\n", c.name)
		recordIngest(t, &out, c.bodies, c.index)
		out.WriteByte('\n')
	}
	golden := filepath.Join("testdata", "commit.golden")
	if *update {
		if err := os.WriteFile(golden, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), out.String()); diff != "" {
		t.Errorf("order of operations (-want +got; -update accepts it):\n%s", diff)
	}
}

// recordIngest writes the operations of an ingest to out. late is what the
// index learns between the question and the registration, and small bodies are
// asked about before that.
func recordIngest(t *testing.T, out *strings.Builder, bodies [][]byte, late func(*fakeIndex)) {
	t.Helper()
	root := t.TempDir()
	d := &disk.Disk{ForceSyncFS: true, Hook: func(op disk.Op, path string) error {
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%-8s %s\n", op, shorten(rel))
		return nil
	}}
	s, tmp := newStoreAt(t, root, d)
	asked, registered := newIndex(), newIndex()
	if late != nil {
		late(registered)
		if len(bodies) == 1 {
			asked = registered
		}
	}
	in, err := s.NewIngest(tmp, asked.known)
	if err != nil {
		t.Fatal(err)
	}
	w := in.Writer()
	for _, b := range bodies {
		if _, err := w.Put(bytes.NewReader(b), int64(len(b))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	err = in.Commit(func(p []Placed) ([]bool, error) {
		fmt.Fprintf(out, "register %d bodies\n", len(p))
		return registered.register(p)
	})
	if err != nil {
		t.Fatal(err)
	}
	mustBeEmpty(t, tmp)
}

// add makes the index know a body.
func (x *fakeIndex) add(b []byte, pl Place) {
	sum := sumOf(b)
	x.bodies[sum] = Placed{Sum: sum, Size: int64(len(b)), Place: pl}
}

var (
	hexSum  = regexp.MustCompile(`[0-9a-f]{64}`)
	hexPack = regexp.MustCompile(`\b[0-9a-f]{16}\b`)
)

// shorten makes names that are random or long readable.
func shorten(path string) string {
	path = hexSum.ReplaceAllStringFunc(path, func(s string) string { return s[:8] + "…" })
	return hexPack.ReplaceAllString(path, "<pack>")
}
