package tree

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// anonymous returns the anonymous memory of the process in bytes.
func anonymous(t testing.TB) int64 {
	p, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip(err)
	}
	m := regexp.MustCompile(`RssAnon:\s+(\d+) kB`).FindSubmatch(p)
	if m == nil {
		t.Skip("no RssAnon in /proc/self/status")
	}
	n, _ := strconv.ParseInt(string(m[1]), 10, 64)
	return n << 10
}

// TestMillion checks that memory does not grow with the layer.
func TestMillion(t *testing.T) {
	if testing.Short() {
		t.Skip("a million files take some seconds")
	}
	runtime.GC()
	before := anonymous(t)
	dir := t.TempDir()
	b := NewBuilder(dir)
	defer b.Close()
	fill(t, b, 1_000_000)
	f, err := os.Create(filepath.Join(dir, "tree"))
	must(t, err)
	defer f.Close()
	if _, err := b.Finish(f, nil); err != nil {
		t.Fatal(err)
	}
	built := anonymous(t) - before
	must(t, b.Close())
	tr, err := Open(f.Name())
	must(t, err)
	defer tr.Close()
	for i := range tr.Inodes() {
		if _, err := tr.Attr(Ino(i)); err != nil {
			t.Fatal(err)
		}
	}
	read := anonymous(t) - before
	t.Logf("anonymous memory: building +%d KiB, reading +%d KiB; table of %d bytes", built>>10, read>>10, tr.Size())
	limit := int64(24 << 20)
	if raceEnabled {
		limit *= 10
	}
	if built > limit || read > limit {
		t.Errorf("memory grows with the layer: building +%d, reading +%d bytes", built, read)
	}
}

// BenchmarkBuild is Add and Finish for a layer of 90,000 files.
func BenchmarkBuild(b *testing.B) {
	const n = 90_000
	m := Meta{Mode: 0o644, MtimeSec: 1700000000}
	paths := make([]string, n)
	dirs := make([]string, n/10)
	for i := range n {
		dirs[i/10] = fmt.Sprintf("usr/lib/node_modules/p%04d/lib%d", i/100, i/10%10)
		paths[i] = fmt.Sprintf("%s/file%d-%d.js", dirs[i/10], i%10, i/1000)
	}
	dir := b.TempDir()
	b.ReportAllocs()
	start := cpuTime(b)
	for b.Loop() {
		tb := NewBuilder(dir)
		for i, p := range paths {
			if i%10 == 0 {
				check(b, tb.Dir(dirs[i/10], m))
			}
			var sum Sum
			le.PutUint64(sum[:], uint64(i+1)*0x9e3779b97f4a7c15)
			check(b, tb.File(p, m, 100, sum, 100, nil))
		}
		_, err := tb.Finish(io.Discard, nil)
		must(b, err)
		must(b, tb.Close())
	}
	b.ReportMetric(float64(cpuTime(b)-start)/float64(b.N)/n, "cpu-ns/file")
}

// cpuTime returns the processor time that the process has used, in nanoseconds.
func cpuTime(b *testing.B) int64 {
	var u unix.Rusage
	check(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return u.Utime.Nano() + u.Stime.Nano()
}

// benchTree returns a tree of n files.
func benchTree(b *testing.B, n int) *Tree {
	tb := NewBuilder(b.TempDir())
	defer tb.Close()
	fill(b, tb, n)
	tr, _ := build(b, tb)
	return tr
}

// BenchmarkLookup looks names up all over a layer of 90,000 files.
func BenchmarkLookup(b *testing.B) {
	tr := benchTree(b, 90_000)
	type at struct {
		dir  Ino
		name []byte
	}
	var all []at
	for d := range Ino(tr.Dirs()) {
		first, count, err := tr.Dir(d)
		must(b, err)
		for i := first; i < first+count; i++ {
			e, err := tr.Dirent(i)
			must(b, err)
			all = append(all, at{d, e.Name})
		}
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i = (i + 7919) % len(all)
		if _, ok, err := tr.Lookup(all[i].dir, all[i].name); err != nil || !ok {
			b.Fatal(err)
		}
	}
}

// BenchmarkWalk reads every name and its attributes.
func BenchmarkWalk(b *testing.B) {
	tr := benchTree(b, 90_000)
	for b.Loop() {
		for i := range tr.Names() {
			d, err := tr.Dirent(i)
			check(b, err)
			_, err = tr.Attr(d.Ino)
			check(b, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(tr.Names()), "ns/name")
}

// check is must without the cost of Helper.
func check(b *testing.B, err error) {
	if err != nil {
		b.Fatal(err)
	}
}
