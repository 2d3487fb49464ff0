package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// save compares writing an image out with copying a file of the same bytes, where
// nothing has to be compressed, and with programs that compress on two cores.
func (b *bench) save() error {
	t, err := b.treesOf("debpy")
	if err != nil {
		return err
	}
	dir, err := b.dir("save")
	if err != nil {
		return err
	}
	_, ids, err := b.output(b.binary, t.store.args("images", "-q", "--no-trunc")...)
	if err != nil {
		return err
	}
	ref := strings.TrimSpace(ids)
	out := filepath.Join(dir, "out")
	plain := filepath.Join(dir, "plain.tar")
	if _, err := t.store.run("save", "-o", plain, ref); err != nil {
		return err
	}
	ours := func(args ...string) side {
		return side{name: "layerfs", before: b.fresh(out), run: func() (sample, error) {
			return t.store.run(append([]string{"save", "-o", out}, append(args, ref)...)...)
		}}
	}
	theirs := func(name, text, in string) side {
		return side{name: name, before: b.fresh(out), run: func() (sample, error) {
			return b.script(text+`; sync "$2"`, in, out)
		}}
	}
	for _, c := range []struct {
		what, other string
		ours        side
		theirs      side
		n           int
	}{
		{"save oci-archive, wall", "cp + sync", ours("--format", "oci-archive"), theirs("cp", `cp "$1" "$2"`, t.archive), b.n},
		{"save docker-archive, wall", "cp + sync", ours(), theirs("cp", `cp "$1" "$2"`, plain), b.n},
		{"save gzip anew, wall", "pigz -p2", ours("--format", "oci-archive", "--compression", "gzip"), theirs("pigz", `pigz -p2 <"$1" >"$2"`, plain), b.loads()},
		{"save zstd anew, wall", "zstd -T2", ours("--format", "oci-archive", "--compression", "zstd"), theirs("zstd", `zstd -q -T2 <"$1" >"$2"`, plain), b.loads()},
	} {
		got, err := b.alternate(c.n, c.ours, c.theirs)
		if err != nil {
			return err
		}
		b.ratio(c.what, c.other, got[0], got[1], wall, 1.0)
	}
	if err := b.zstdSize(t, ref, plain, out); err != nil {
		return err
	}
	return nil
}

// zstdSize compares what the compression at the default levels gives: layerfs takes the
// faster level.
func (b *bench) zstdSize(t *treesOf, ref, plain, out string) error {
	if err := b.fresh(out)(); err != nil {
		return err
	}
	if _, err := t.store.run("save", "-o", out, "--format", "oci-archive", "--compression", "zstd", ref); err != nil {
		return err
	}
	ours, err := os.Stat(out)
	if err != nil {
		return err
	}
	if _, err := b.script(`zstd -q -T2 <"$1" >"$2"`, plain, out); err != nil {
		return err
	}
	theirs, err := os.Stat(out)
	if err != nil {
		return err
	}
	b.add(line{
		what: "save zstd anew, size", peer: "zstd -T2", ours: megabytes(float64(ours.Size())), theirs: megabytes(float64(theirs.Size())),
		ratio: fmt.Sprintf("%.2f", float64(ours.Size())/float64(theirs.Size())), spread: "-", target: "-", verdict: open,
	})
	return nil
}

// fresh returns what removes a file and lets the disk come to rest.
func (b *bench) fresh(path string) func() error {
	return func() error {
		_, err := b.script(`rm -rf "$1"; sync`, path)
		return err
	}
}
