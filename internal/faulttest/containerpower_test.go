package faulttest_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/internal/faultfs"
	"github.com/layerfs/layerfs/internal/testenv"
	"github.com/layerfs/layerfs/internal/treetest"
)

// A version is what a path held from one moment on. Moments are numbers of operations
// on the disk.
type version struct {
	content string
	absent  bool
	inPlace bool // was written over what was there: until it is synced, a part of it may be there
	from    int  // when it began to be made
	synced  int  // when it was promised to stay; never is later than all
}

const never = 1 << 30

// A busy program changes files of a container, as programs do that want to find them
// again after a power failure, and knows what it was promised.
type busy struct {
	t      *testing.T
	r      *rand.Rand
	f      *faultfs.FS
	dir    string
	model  faultfs.Model
	paths  map[string][]version
	serial int
}

func newBusy(b *boxBench, r *rand.Rand, f *faultfs.FS, m faultfs.Model) *busy {
	p := &busy{t: b.t, r: r, f: f, dir: b.dir, model: m, paths: map[string][]version{}}
	for path, content := range map[string]string{
		"data/a": noise(3, 9000), "etc/motd": noise(1, 3000), "data/sub/c": "c", "bin/tool": noise(2, 150_000),
	} {
		p.paths[path] = []version{{content: content}}
	}
	for _, path := range []string{"data/n1", "data/n2", "etc/n", "n"} {
		p.paths[path] = []version{{absent: true}}
	}
	return p
}

func (p *busy) at(path string) string { return filepath.Join(p.dir, path) }

func (p *busy) last(path string) *version {
	list := p.paths[path]
	return &list[len(list)-1]
}

// work does some of what programs do.
func (p *busy) work(steps int) {
	var paths []string
	for path := range p.paths {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	for range steps {
		path := paths[p.r.IntN(len(paths))]
		there := !p.last(path).absent
		switch kind := p.r.IntN(8); {
		case kind < 3 || !there:
			p.replace(path)
		case kind < 5:
			p.overwrite(path, p.r.IntN(3) > 0)
		case kind == 5:
			p.remove(path)
		case kind == 6 && p.model == faultfs.Journal:
			must(p.t, os.Chmod(p.at(path), 0o600+os.FileMode(p.r.IntN(8))))
		default:
			p.syncFile(path)
		}
	}
}

func (p *busy) text() string {
	p.serial++
	return noise(uint64(100+p.serial), 1+p.r.IntN(9000))
}

// replace is how programs replace a file: they write another, sync it, and rename it.
func (p *busy) replace(path string) {
	v := version{content: p.text(), from: p.f.Len(), synced: never}
	temp := p.at(path) + ".new"
	f, err := os.Create(temp)
	must(p.t, err)
	_, err = f.WriteString(v.content)
	must(p.t, errors.Join(err, f.Sync(), f.Close(), os.Rename(temp, p.at(path))))
	p.paths[path] = append(p.paths[path], v)
	if p.r.IntN(2) == 0 {
		p.syncDir(path)
	}
}

// syncDir makes the names of a directory durable.
func (p *busy) syncDir(path string) {
	dir, err := os.Open(filepath.Dir(p.at(path)))
	must(p.t, err)
	must(p.t, errors.Join(dir.Sync(), dir.Close()))
	if v := p.last(path); !v.inPlace && v.synced == never {
		v.synced = p.f.Len()
	}
}

// overwrite writes over a part of a file, as databases do.
func (p *busy) overwrite(path string, sync bool) {
	old := p.last(path)
	part := p.text()
	off := p.r.IntN(len(old.content) + 1)
	v := version{content: old.content[:off] + part, inPlace: true, from: p.f.Len(), synced: never}
	if end := off + len(part); end < len(old.content) {
		v.content += old.content[end:]
	}
	named := old.synced < never
	f, err := os.OpenFile(p.at(path), os.O_WRONLY, 0)
	must(p.t, err)
	_, err = f.WriteAt([]byte(part), int64(off))
	must(p.t, err)
	if sync {
		must(p.t, f.Sync())
		if named || p.model == faultfs.Journal {
			v.synced = p.f.Len()
		}
	}
	must(p.t, f.Close())
	p.paths[path] = append(p.paths[path], v)
}

// syncFile syncs a file that is there: its content and, on a journal, its name.
func (p *busy) syncFile(path string) {
	f, err := os.Open(p.at(path))
	must(p.t, err)
	must(p.t, errors.Join(f.Sync(), f.Close()))
	v := p.last(path)
	before := p.paths[path][max(0, len(p.paths[path])-2)]
	if v.synced == never && (p.model == faultfs.Journal || v.inPlace && before.synced < never) {
		v.synced = p.f.Len()
	}
}

func (p *busy) remove(path string) {
	v := version{absent: true, from: p.f.Len(), synced: never}
	must(p.t, unix.Unlink(p.at(path)))
	p.paths[path] = append(p.paths[path], v)
	if p.r.IntN(2) == 0 {
		p.syncDir(path)
	}
}

// allowed says what a path may be after a power failure at a moment.
func (p *busy) allowed(path string, at int) (contents []string, absent, anything bool) {
	list := p.paths[path]
	first := 0
	for i, v := range list {
		if v.synced <= at {
			first = i
		}
	}
	for i, v := range list[first:] {
		switch {
		case v.from > at:
		case v.absent:
			absent = true
		case v.inPlace && i > 0 || v.inPlace && v.synced > at:
			anything = true
		default:
			contents = append(contents, v.content)
		}
	}
	return contents, absent, anything
}

// kept compares what is there after a power failure with the promises.
func (p *busy) kept(when string, at int) {
	p.t.Helper()
	for path := range p.paths {
		contents, absent, anything := p.allowed(path, at)
		raw, err := os.ReadFile(p.at(path))
		switch {
		case errors.Is(err, fs.ErrNotExist) && absent, err == nil && anything, err == nil && slices.Contains(contents, string(raw)):
		case errors.Is(err, fs.ErrNotExist):
			p.t.Errorf("%s: %s is gone; %s", when, path, p.history(path, at))
		default:
			p.t.Errorf("%s: %s holds %d bytes, %.20q, %v; want one of %d contents, absent %v; %s", when, path, len(raw), raw, err, len(contents), absent, p.history(path, at))
		}
	}
}

func (p *busy) history(path string, at int) string {
	var out []string
	for _, v := range p.paths[path] {
		if v.from <= at {
			out = append(out, fmt.Sprintf("%d..%d: %d bytes %.10q, in place %v, absent %v", v.from, v.synced, len(v.content), v.content, v.inPlace, v.absent))
		}
	}
	return strings.Join(out, "; ")
}

// TestContainerPowerLoss lets the power fail while a program works in a container. What
// it has synced is there, what it has replaced is old or new, what it has not touched is
// as in the image, and the container can be mounted and used.
//
// On a file system that keeps a rename and loses attributes that were set before it, a
// file whose attributes alone were changed would lose its content, as with the kernel's
// overlayfs: that is not wanted of Strict.
func TestContainerPowerLoss(t *testing.T) {
	testenv.Require(t, "fuse", "root")
	for _, m := range []faultfs.Model{faultfs.Strict, faultfs.Journal} {
		t.Run(string(m), func(t *testing.T) {
			t.Parallel()
			r := random(t)
			b := newBoxBench(t)
			tried := 0
			for range 1 + places(0)/100 {
				tried += b.powerLosses(r, m)
			}
			t.Logf("%d power failures", tried)
		})
	}
}

// powerLosses lets a program work once and the power fail at many moments of it.
func (b *boxBench) powerLosses(r *rand.Rand, m faultfs.Model) (tried int) {
	b.t.Helper()
	var p *busy
	var image *treetest.Snapshot
	var log *faultfs.Log
	b.with(b.before(), func(f *faultfs.FS) {
		b.mounted(func() {
			image = b.take()
			f.Record()
			p = newBusy(b, r, f, m)
			p.work(30)
			log = f.Log()
		})
	})
	for _, n := range append(choose(r, len(log.Ops), min(places(2), 200)), len(log.Ops)) {
		for _, some := range []*rand.Rand{nil, rand.New(rand.NewPCG(r.Uint64(), 0))} {
			when := fmt.Sprintf("power lost after %d of %d operations, %s", n, len(log.Ops), m)
			if some != nil {
				when += " with some of the rest"
			}
			b.boot = when
			b.with(log.Crash(n, m, some), func(f *faultfs.FS) {
				b.mounted(func() {
					p.kept(when, n)
					b.untouched(when, image, p)
					must(b.t, os.WriteFile(p.at("data/a"), []byte("after"), 0o644))
				})
				b.look(when)
				b.noWork(when, f)
			})
			b.boot = ""
			tried++
		}
	}
	return tried
}

// untouched compares what the program has not touched with the image.
func (b *boxBench) untouched(when string, image *treetest.Snapshot, p *busy) {
	b.t.Helper()
	got := b.take()
	for path := range got.Entries {
		if strings.HasSuffix(path, ".new") {
			delete(got.Entries, path)
		}
	}
	for path := range p.paths {
		delete(got.Entries, path)
	}
	want := &treetest.Snapshot{Entries: map[string]*treetest.Entry{}}
	for path, e := range image.Entries {
		if p.paths[path] == nil && e.Group != "bin/tool" {
			want.Entries[path] = e
		}
	}
	delete(got.Entries, "bin/tool2") // shares its content with one that was touched
	if d := differs(want, got, ""); len(d) > 0 {
		b.t.Errorf("%s: what nobody touched: %q", when, d)
	}
}
