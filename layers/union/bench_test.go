package union

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/layerfs/layerfs/index/tree"
	"golang.org/x/sys/unix"
)

// Benchmarks walk 100,000 files in 10,000 directories, as one layer and spread
// over a hundred.
const (
	benchFiles  = 100_000
	benchLayers = 100
)

// benchPath returns the directory and the name of file i.
func benchPath(i int) (dir, name string) {
	return fmt.Sprintf("usr/lib/node_modules/p%03d/lib%d", i/100, i/10%10), fmt.Sprintf("file%d.js", i%10)
}

// benchStack spreads the files over layers. of says which layer file i is in.
func benchStack(b *testing.B, layers int, of func(i int) int) []*tree.Tree {
	files := make([][]int, layers)
	for i := range benchFiles {
		k := of(i)
		files[k] = append(files[k], i)
	}
	var list []*tree.Tree
	dir := b.TempDir()
	for _, f := range files {
		list = append(list, build(b, dir, func(tb *tree.Builder) {
			last := ""
			for _, i := range f {
				d, name := benchPath(i)
				if d != last {
					must(b, tb.Dir(d, tree.Meta{Mode: 0o755}))
					last = d
				}
				must(b, tb.File(d+"/"+name, tree.Meta{Mode: 0o644}, 0, tree.Sum{}, 0, nil))
			}
		}))
	}
	b.Cleanup(func() { closeAll(list) })
	return list
}

// walk does what a first ls -lR makes a file system do: list every directory with
// all attributes, then its subdirectories, from their numbers.
func walk(s *Stack) (files int, err error) {
	stack := []DirID{s.DirID(s.Root())}
	for len(stack) > 0 {
		id := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		l, err := s.Open(id)
		if err != nil {
			return 0, err
		}
		if _, err := s.Parent(id); err != nil {
			return 0, err
		}
		at := len(stack)
		for i := range l.Len() {
			_, n, _, err := l.Attr(i)
			if err != nil {
				return 0, err
			}
			if n.Kind == tree.KindDirectory {
				stack = append(stack, s.DirID(n))
			} else {
				files++
			}
		}
		for i, j := at, len(stack)-1; i < j; i, j = i+1, j-1 {
			stack[i], stack[j] = stack[j], stack[i]
		}
	}
	return files, nil
}

// benchWalk measures first walks: every one has an empty cache.
func benchWalk(b *testing.B, layers []*tree.Tree) {
	b.ReportAllocs()
	start := cpuTime(b)
	for b.Loop() {
		n, err := walk(New(layers))
		if err != nil || n != benchFiles {
			b.Fatal(n, err)
		}
	}
	b.ReportMetric(float64(cpuTime(b)-start)/float64(b.N)/benchFiles, "cpu-ns/file")
}

// cpuTime returns the processor time that the process has used, in nanoseconds.
func cpuTime(b *testing.B) int64 {
	var u unix.Rusage
	must(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return u.Utime.Nano() + u.Stime.Nano()
}

// BenchmarkFirstWalk compares a hundred layers with one.
func BenchmarkFirstWalk(b *testing.B) {
	one := func(int) int { return 0 }
	for _, c := range []struct {
		name   string
		layers int
		of     func(i int) int
	}{
		{"one", 1, one},
		// Each layer brings some packages, as those of a Dockerfile do.
		{"packages", benchLayers, func(i int) int { return i / (benchFiles / benchLayers) }},
		// A base and small changes all over it.
		{"changes", benchLayers, func(i int) int {
			if h := i * 2654435761 >> 8 & 1023; h < 100 {
				return 1 + h%99
			}
			return 0
		}},
		// Every directory is spread over about ten layers.
		{"scattered", benchLayers, func(i int) int { return i * 2654435761 >> 8 % benchLayers }},
	} {
		b.Run(c.name, func(b *testing.B) { benchWalk(b, benchStack(b, c.layers, c.of)) })
	}
}

// BenchmarkLookup looks files up in a stack of a hundred layers.
func BenchmarkLookup(b *testing.B) {
	s := New(benchStack(b, benchLayers, func(i int) int { return i / (benchFiles / benchLayers) }))
	type at struct {
		dir  DirID
		name []byte
	}
	var all []at
	for i := 0; i < benchFiles; i += 10 {
		dir, name := benchPath(i)
		n, _, err := s.Resolve(dir)
		must(b, err)
		all = append(all, at{s.DirID(n), []byte(name)})
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		a := all[i%len(all)]
		i++
		if _, ok, err := s.Lookup(a.dir, a.name); err != nil || !ok {
			b.Fatal(ok, err)
		}
	}
}

// BenchmarkRecompute finds the contributors of directories with an empty cache.
func BenchmarkRecompute(b *testing.B) {
	layers := benchStack(b, benchLayers, func(i int) int { return i / (benchFiles / benchLayers) })
	s := New(layers)
	n, _, err := s.Resolve("usr/lib/node_modules/p500/lib3")
	must(b, err)
	c := NewCache(1)
	for b.Loop() {
		if _, err := c.New(layers).Attr(n); err != nil {
			b.Fatal(err)
		}
	}
}

// TestAllocs checks that look-ups on a warm cache do not allocate.
func TestAllocs(t *testing.T) {
	dir := t.TempDir()
	var layers []*tree.Tree
	for i := range 4 {
		layers = append(layers, build(t, dir, func(b *tree.Builder) {
			must(t, b.File(fmt.Sprintf("usr/lib/p%d/f", i), tree.Meta{}, 0, tree.Sum{}, 0, nil))
			must(t, b.File("usr/lib/f", tree.Meta{}, 0, tree.Sum{}, 0, nil))
		}))
	}
	defer closeAll(layers)
	s := New(layers)
	for _, p := range []string{"usr/lib", "usr/lib/p0", "usr/lib/p2"} {
		n, ok, err := s.Resolve(p)
		if err != nil || !ok {
			t.Fatal(p, ok, err)
		}
		id, name := s.DirID(n), []byte("f")
		for what, fn := range map[string]func(){
			"Lookup": func() { _, _, _ = s.Lookup(id, name) },
			"Attr":   func() { _, _ = s.Attr(n) },
			"Parent": func() { _, _ = s.Parent(id) },
		} {
			if n := testing.AllocsPerRun(100, fn); n != 0 {
				t.Errorf("%s %s: %v allocations", p, what, n)
			}
		}
	}
}

// TestCacheBounded checks that a cache stays small, and keeps what is larger than
// it is while it is being read.
func TestCacheBounded(t *testing.T) {
	dir := t.TempDir()
	var layers []*tree.Tree
	for i := range 2 {
		layers = append(layers, build(t, dir, func(b *tree.Builder) {
			for d := range 3000 {
				must(t, b.File(fmt.Sprintf("%d/%d", d, i), tree.Meta{}, 0, tree.Sum{}, 0, nil))
			}
		}))
	}
	defer closeAll(layers)
	c := NewCache(64 << 10)
	s := c.New(layers)
	if n, err := walk(s); err != nil || n != 6000 {
		t.Fatal(n, err)
	}
	if got := c.chains.bytes + c.listings.bytes; got > 96<<10 {
		t.Errorf("cache of %d bytes", got)
	}
	root := s.DirID(s.Root())
	a, err := s.Open(root)
	must(t, err)
	b, err := s.Open(root)
	must(t, err)
	if a != b {
		t.Error("a listing larger than the cache is merged again for every piece")
	}
}
