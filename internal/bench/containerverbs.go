package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// tenChanges is what is done before changes and diff are measured.
const tenChanges = `cd "$1/$2"; n=0
	for f in $(find . -type f -size -100k | head -6); do echo changed >> "$f"; done
	for f in $(find . -type f -size -100k | tail -2); do rm "$f"; done
	echo new > bench-new-1; mkdir bench-new-2`

// containerVerbs measures create and rm, and changes and diff after ten changes,
// against podman diff on fuse-overlayfs.
func (b *bench) containerVerbs() error {
	w, err := b.workplace()
	if err != nil {
		return err
	}
	t, sub := w.t, w.args[1]
	var list samples
	var removed samples
	for range max(b.n, 5) * 2 {
		s, err := t.store.run("create", "--name", "verbs", t.reference())
		if err != nil {
			return err
		}
		list = append(list, s)
		if s, err = t.store.run("rm", "verbs"); err != nil {
			return err
		}
		removed = append(removed, s)
	}
	m, spread := list.median(wall)
	b.bound("create a container", m, 0.020, seconds, spread)
	m, spread = removed.median(wall)
	b.bound("rm a container", m, 0.020, seconds, spread)
	podman, err := b.podmanDiff(t, sub)
	if err != nil {
		b.skip("changes against podman diff", err.Error())
	}
	for _, driver := range []string{"overlay", "fuse"} {
		if err := b.changesAndDiff(t, sub, driver, podman); err != nil {
			return err
		}
	}
	return nil
}

// changesAndDiff measures both after ten changes through one driver.
func (b *bench) changesAndDiff(t *treesOf, sub, driver string, podman samples) (err error) {
	g := b.container(t, driver)
	dir, err := g.enter()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.leave()) }()
	if _, err := b.script(tenChanges, dir, sub); err != nil {
		return err
	}
	sides := []side{
		{name: "changes", run: func() (sample, error) { return t.store.run("changes", "bench") }},
		{name: "diff", run: func() (sample, error) { return t.store.run("diff", "-o", filepath.Join(b.work, "diff.tar"), "bench") }},
	}
	got, err := b.alternate(3*b.n, sides...)
	if err != nil {
		return err
	}
	for i, what := range []string{"changes", "diff"} {
		m, spread := got[i].median(wall)
		b.bound(fmt.Sprintf("%s after 10 changes, %s", what, driver), m, 0.050, seconds, spread)
		if len(podman) > 0 {
			b.ratio(fmt.Sprintf("%s after 10 changes, %s", what, driver), "podman diff", got[i], podman, wall, 1.0/20)
		}
	}
	return nil
}

// podmanDiff makes the same changes in a container of podman on fuse-overlayfs and
// measures podman diff, as often as loads: it takes a thousand times as long.
func (b *bench) podmanDiff(t *treesOf, sub string) (_ samples, err error) {
	fo, err := exec.LookPath("fuse-overlayfs")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(b.work, "p") // podman allows it 50 characters
	if err != nil {
		return nil, err
	}
	args := func(args ...string) []string {
		return append([]string{
			"--root", filepath.Join(dir, "s"), "--runroot", filepath.Join(dir, "r"), "--tmpdir", filepath.Join(dir, "t"),
			"--storage-driver", "overlay", "--storage-opt", "overlay.mount_program=" + fo,
		}, args...)
	}
	defer func() {
		_, err2 := b.command("podman", args("rm", "-f", "bench")...)
		_, err3 := b.command("podman", args("rmi", "-a", "-f")...)
		if err = errors.Join(err, err2, err3); err == nil {
			err = os.RemoveAll(dir)
		} // else it may be mounted; see detachAll
	}()
	_, err = b.script(`podman=("${@:3}"); archive=$1; sub=$2
		id=$("${podman[@]}" load -q -i "$archive" | sed 's/^Loaded image: //'); "${podman[@]}" create -q --name bench "$id" true >/dev/null
		set -- "$("${podman[@]}" mount bench)" "$sub"; `+tenChanges, append([]string{t.archive, sub, "podman"}, args()...)...)
	if err != nil {
		return nil, err
	}
	got, err := b.alternate(b.loads(), side{name: "podman", run: func() (sample, error) { return b.command("podman", args("diff", "bench")...) }})
	if err != nil {
		return nil, err
	}
	return got[0], nil
}
