package layers

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/layerfs/layerfs/internal/disk"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestLoadOrder reviews the order in which a load reaches the disk: everything is
// written and synced before it gets its name, and the index, which is no operation
// of package disk, is told of bodies before any tree refers to them and of the
// image last of all.
func TestLoadOrder(t *testing.T) {
	s := newStore(t)
	var ops []string
	names := strings.NewReplacer(s.root, "")
	random := regexp.MustCompile(`[0-9a-f]{12,}`)
	d := &disk.Disk{Hook: func(op disk.Op, path string) error {
		ops = append(ops, fmt.Sprintf("%s %s", op, random.ReplaceAllString(names.Replace(path), "…")))
		return nil
	}}
	traced, err := Open(s.root, &Options{Disk: d})
	if err != nil {
		t.Fatal(err)
	}
	defer traced.Close()
	src := image(t, archive(t, dir("d/"), file("d/small", "hello"), file("d/large", strings.Repeat("0123456789abcdef", 20_000))))
	if _, err := traced.Load(t.Context(), src, nil); err != nil {
		t.Fatal(err)
	}
	ops = slices.Compact(ops) // how many writes a file takes does not matter
	got := strings.Join(ops, "\n") + "\n"
	golden := filepath.Join("testdata", "load.golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the order has changed; is it still safe?\n%s", got)
	}
}
