package main

import (
	"archive/tar"
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// million is how many files the memory of the server is measured with.
const million = 1_000_000

// memory walks an image of a million files and reads the anonymous memory of the
// serving process.
func (b *bench) memory() error {
	s, err := b.newStore()
	if err != nil {
		return err
	}
	if err := b.importStream(s, "localhost/million:1", millionFiles); err != nil {
		return err
	}
	mnt, err := s.mount()
	if err != nil {
		return err
	}
	defer func() { b.note(s.umount(mnt)) }()
	pid, err := s.server(mnt)
	if err != nil {
		return err
	}
	rootfs := filepath.Join(mnt, "images/localhost/million@1/rootfs")
	for _, script := range []string{find, lslR} {
		if _, err := b.script(script, rootfs); err != nil {
			return err
		}
	}
	anon, err := anonymous(pid)
	if err != nil {
		return err
	}
	b.bound("memory of the server after 1,000,000 files", anon, 32<<20, megabytes, 0)
	return nil
}

// importStream imports a tar while it is made.
func (b *bench) importStream(s *store, name string, write func(*tar.Writer) error) error {
	cmd := exec.CommandContext(b.ctx, b.binary, s.args("import", "-", name)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	buf := bufio.NewWriterSize(in, 1<<20)
	w := tar.NewWriter(buf)
	err = write(w)
	for _, end := range []func() error{w.Close, buf.Flush, io.Closer(in).Close} {
		if err == nil {
			err = end()
		}
	}
	if werr := cmd.Wait(); werr != nil {
		return fmt.Errorf("import: %w: %s", werr, stderr.String())
	}
	return err
}

// millionFiles is 1,000 directories of 1,000 files; every tenth has content.
func millionFiles(w *tar.Writer) error {
	for d := range 1000 {
		dir := fmt.Sprintf("dir-%03d", d)
		if err := addDir(w, dir); err != nil {
			return err
		}
		for f := range million / 1000 {
			h := &tar.Header{Name: fmt.Sprintf("%s/file-%03d.txt", dir, f), Typeflag: tar.TypeReg, Mode: 0o644, ModTime: epoch.Truncate(1e9)}
			content := ""
			if f%10 == 0 {
				content = fmt.Sprintln(d, f)
			}
			h.Size = int64(len(content))
			if err := w.WriteHeader(h); err != nil {
				return err
			}
			if _, err := io.WriteString(w, content); err != nil {
				return err
			}
		}
	}
	return nil
}

// anonymous is the memory of a process that no file backs.
func anonymous(pid int) (float64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for l := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(l, "RssAnon:"); ok {
			var kb float64
			_, err := fmt.Sscan(value, &kb)
			return kb * 1024, err
		}
	}
	return 0, fmt.Errorf("process %d: no RssAnon", pid)
}

// disk compares what a store takes with the bytes of the different files in it,
// and with a bare repository of ostree.
func (b *bench) disk() error {
	for _, name := range []string{"debpy", "nodeapp"} {
		t, err := b.treesOf(name)
		if err != nil {
			b.skip("disk "+name, err.Error())
			continue
		}
		unique, err := uniqueBytes(t.image.Tars...)
		if err != nil {
			return err
		}
		ours, err := usage(t.store.root)
		if err != nil {
			return err
		}
		b.space("disk after load, "+b.label(name), "unique bodies", ours, unique, 1.03)
		if ours, err = t.store.squeezed(); err != nil {
			return err
		}
		b.space("disk after load and squeeze, "+b.label(name), "unique bodies", ours, unique, 1.03)
		if lacks([]string{"ostree", "root"}) == "" && name == "debpy" {
			theirs, err := b.ostree(t)
			if err != nil {
				return err
			}
			b.space("disk after load and squeeze, "+b.label(name), "ostree, bare", ours, theirs, 1)
		}
	}
	return nil
}

// squeezed takes the compressed layers that a load keeps together to what makes them
// again, and returns what the store takes on disk then.
func (s *store) squeezed() (int64, error) {
	if _, err := s.run("squeeze"); err != nil {
		return 0, err
	}
	return usage(s.root)
}

// space adds a line that compares bytes.
func (b *bench) space(what, peer string, ours, theirs int64, target float64) {
	r := float64(ours) / float64(theirs)
	b.add(line{
		what: what, peer: peer, ours: megabytes(float64(ours)), theirs: megabytes(float64(theirs)), ratio: fmt.Sprintf("%.3f", r),
		spread: "-", target: fmt.Sprintf("<= %.2f", target), verdict: kept(r <= target),
	})
}

// ostree commits the layers into a bare repository.
func (b *bench) ostree(t *treesOf) (int64, error) {
	repo, err := b.dir("ostree")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(repo)
	// ostree has no devices and FIFOs: it gets a copy without them.
	_, err = b.script(`repo=$1; shift; ostree init --repo="$repo/r" --mode=bare; i=0
		for d; do i=$((i+1)); cp -a "$d" "$repo/d"; find "$repo/d" \( -type c -o -type b -o -type p -o -type s \) -delete
		ostree commit --repo="$repo/r" -b l$i --tree=dir="$repo/d" >/dev/null; rm -rf "$repo/d"; done`, append([]string{repo}, t.layers...)...)
	if err != nil {
		return 0, err
	}
	return usage(filepath.Join(repo, "r"))
}

// diskOf20 loads 20 images that differ little.
func (b *bench) diskOf20() error {
	archive, err := b.archive("ded20")
	if err != nil {
		if archive, err = b.twenty(); err != nil {
			return err
		}
	}
	unique, err := b.uniqueOf(archive)
	if err != nil {
		return err
	}
	s, err := b.newStore()
	if err != nil {
		return err
	}
	names, err := s.load(archive)
	if err != nil {
		return err
	}
	ours, err := s.squeezed()
	if err != nil {
		return err
	}
	b.space(fmt.Sprintf("disk of %d near-identical images, squeezed", len(names)), "unique bodies", ours, unique, 1.15)
	return s.remove()
}
