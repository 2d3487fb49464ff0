package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/internal/testenv"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		in             []time.Duration
		median, spread float64
	}{
		{nil, 0, 0},
		{[]time.Duration{3 * time.Second}, 3, 0},
		{[]time.Duration{3 * time.Second, time.Second, 2 * time.Second}, 2, 0.5},
		{[]time.Duration{4 * time.Second, time.Second, 3 * time.Second, 2 * time.Second}, 2.5, 0.6},
	} {
		var list samples
		for _, d := range c.in {
			list = append(list, sample{wall: d})
		}
		if m, s := list.median(wall); m != c.median || s != c.spread {
			t.Errorf("%v: median %v, spread %v, want %v and %v", c.in, m, s, c.median, c.spread)
		}
	}
}

// Every verdict follows from what was measured.
func TestVerdicts(t *testing.T) {
	b := &bench{topic: "x"}
	one, two := samples{{wall: time.Second}}, samples{{wall: 2 * time.Second}}
	b.ratio("faster", "p", one, two, wall, 0.5)
	b.ratio("slower", "p", two, one, wall, 1.9)
	b.ratio("no promise", "p", two, one, wall, 0)
	b.rate("as fast", "p", one, one, 1e6, 1e6, 1)
	b.rate("half as fast", "p", two, one, 1e6, 1e6, 0.9)
	b.bound("enough", 3, 3, number, 0)
	b.bound("too much", 4, 3, number, 0)
	want := []verdict{met, missed, open, met, missed, met, missed}
	for i, l := range b.lines {
		if l.verdict != want[i] {
			t.Errorf("%s: %q, want %q", l.what, l.verdict, want[i])
		}
	}
	if got := b.score(); got != "3 of 6 targets met" {
		t.Error(got)
	}
}

// The tables go where the document has its marks, a second time too, and nowhere else.
func TestMarkdown(t *testing.T) {
	b := &bench{topic: "Topic", n: 1, began: time.Now()}
	b.bound("a | b", 1, 2, number, 0)
	b.skip("row", "why\nnot")
	file := filepath.Join(t.TempDir(), "doc.md")
	if err := os.WriteFile(file, []byte("before\n"+markBegin+"\nold\n"+markEnd+"\nafter\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var texts [2]string
	for i := range texts {
		if err := b.markdown(file); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		texts[i] = string(data)
	}
	for _, text := range texts {
		for _, want := range []string{"before\n" + markBegin + "\n* machine: ", "\n### Topic\n\n| work |", `| a \| b | - | 1 |`, "* row: why not\n" + markEnd + "\nafter\n"} {
			if !strings.Contains(text, want) {
				t.Errorf("no %q in\n%s", want, text)
			}
		}
		if strings.Contains(text, "old") {
			t.Error("what was between the marks is still there")
		}
	}
	if _, err := between("no marks", "x"); err == nil {
		t.Error("a document without marks is no error")
	}
}

// The document of the project can take the tables, and rows can be told apart.
func TestDocument(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(testenv.ModuleRoot(t), "docs/benchmarks.md"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := between(string(data), ""); err != nil {
		t.Error(err)
	}
	seen := map[string]bool{}
	for _, r := range rows() {
		if seen[r.name] || r.topic == "" {
			t.Errorf("row %q: no topic, or a second one of this name", r.name)
		}
		seen[r.name] = true
	}
}

// What hangs below the work directory in the end is unmounted, and nothing beside it.
func TestDetachAll(t *testing.T) {
	testenv.Require(t, "root")
	dir := t.TempDir()
	work, beside := filepath.Join(dir, "work"), filepath.Join(dir, "work-beside")
	for _, d := range []string{filepath.Join(work, "a"), beside} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("none", d, "tmpfs", 0, "size=1m"); err != nil {
			t.Fatal(err)
		}
		defer detach(d) // where the test fails
		if err := os.WriteFile(filepath.Join(d, "f"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	(&bench{work: work}).detachAll()
	if _, err := os.Stat(filepath.Join(work, "a", "f")); !os.IsNotExist(err) {
		t.Errorf("below: %v", err)
	}
	if _, err := os.Stat(filepath.Join(beside, "f")); err != nil {
		t.Errorf("beside: %v", err)
	}
}
