package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// loadEverywhere compares loading a smaller image with every program that is
// installed and can bring an image into a form that can be worked with. Nothing is
// promised about them. Only layerfs and tar, which is followed by sync, are durable
// on return.
func (b *bench) loadEverywhere(name string) error {
	t, err := b.opened(name)
	if err != nil {
		return err
	}
	var s *store
	sides := []side{{
		name: "layerfs",
		before: func() (err error) {
			s, err = b.newStore()
			return errors.Join(err, warmArchive(t))
		},
		run:   func() (sample, error) { return s.run("load", "-q", "-i", t.archive) },
		after: func() error { return s.remove() },
	}, b.untar(t)}
	for _, p := range []struct {
		program string
		side    func(*treesOf) (side, error)
	}{
		{"podman", func(t *treesOf) (side, error) { return b.podman(t), nil }},
		{"skopeo", b.skopeo},
		{"umoci", b.umoci},
		{"ctr", b.containerd},
		{"ostree", b.ostreeLayers},
	} {
		if why := lacks([]string{p.program, "root"}); why != "" {
			b.skip("load "+name+" with "+p.program, why)
			continue
		}
		side, err := p.side(t)
		if err != nil {
			return err
		}
		sides = append(sides, side)
	}
	got, err := b.alternate(b.n, sides...)
	if err != nil {
		return err
	}
	for i, side := range sides[1:] {
		b.ratio("load "+b.label(name)+", wall", side.name, got[0], got[i+1], wall, 0)
		if side.name != importing { // whose daemon does the work
			b.ratio("load "+b.label(name)+", CPU", side.name, got[0], got[i+1], cpu, 0)
		}
	}
	return nil
}

// inDirectory runs a script with a fresh directory as its first argument.
func (b *bench) inDirectory(name string, t *treesOf, script string, args ...string) side {
	var dir string
	return side{
		name: name,
		before: func() (err error) {
			dir, err = b.dir("peer")
			return errors.Join(err, warmArchive(t))
		},
		run: func() (sample, error) { return b.script(script, append([]string{dir}, args...)...) },
		after: func() error {
			_, err := b.command("rm", "-rf", dir)
			_, err2 := b.command("sync")
			return errors.Join(err, err2)
		},
	}
}

func (b *bench) skopeo(t *treesOf) (side, error) {
	return b.inDirectory("skopeo copy", t,
		`skopeo copy -q --insecure-policy "oci-archive:$2" "containers-storage:[overlay@$1/s+$1/r]localhost/bench:1"; umount -l "$1/s/overlay" 2>&1 || true`, t.archive), nil
}

// umoci takes a layout with a name.
func (b *bench) umoci(t *treesOf) (side, error) {
	layout, err := b.dir("umoci")
	if err != nil {
		return side{}, err
	}
	if _, err := b.script(`skopeo copy -q --insecure-policy "oci-archive:$1" "oci:$2:bench"`, t.archive, layout); err != nil {
		return side{}, err
	}
	return b.inDirectory("umoci unpack", t, `umoci unpack --image "$2:bench" "$1/bundle"`, layout), nil
}

// ostreeLayers leaves out devices, which ostree does not know.
func (b *bench) ostreeLayers(t *treesOf) (side, error) {
	return b.inDirectory("tar -xzf, ostree commit", t, `repo=$1; shift; ostree init --repo="$repo/r" --mode=bare; i=0
		for f; do i=$((i+1)); mkdir "$repo/$i"; tar -xzf "$f" -C "$repo/$i" --exclude './dev/*' --exclude 'dev/*'
		ostree commit --repo="$repo/r" -b l$i --tree=dir="$repo/$i" >/dev/null; rm -rf "$repo/$i"; done`, t.blobs...), nil
}

// importing is how containerd's side is called.
const importing = "ctr images import"

// containerd imports and unpacks with a daemon of its own.
func (b *bench) containerd(t *treesOf) (side, error) {
	if _, err := exec.LookPath("containerd"); err != nil {
		return side{}, err
	}
	var dir, socket string
	var stop func() error
	return side{
		name: importing,
		before: func() (err error) {
			if dir, err = b.dir("ctr"); err != nil {
				return err
			}
			socket = filepath.Join(dir, "sock")
			stop, err = b.startContainerd(dir, socket)
			return errors.Join(err, warmArchive(t))
		},
		run: func() (sample, error) { return b.command("ctr", "-a", socket, "images", "import", t.archive) },
		after: func() error {
			err := stop()
			_, err2 := b.command("rm", "-rf", dir)
			_, err3 := b.command("sync")
			return errors.Join(err, err2, err3)
		},
	}, nil
}

// startContainerd starts the daemon and waits until it answers.
func (b *bench) startContainerd(dir, socket string) (stop func() error, err error) {
	conf := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(conf, []byte("version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n"), 0o600); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(b.ctx)
	cmd := exec.CommandContext(ctx, "containerd", "--config", conf, "--root", filepath.Join(dir, "root"), "--state", filepath.Join(dir, "state"), "--address", socket)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	stop = func() error {
		cancel()
		_ = cmd.Wait() // it was killed
		return nil
	}
	for range 200 {
		if _, err := b.command("ctr", "-a", socket, "version"); err == nil {
			return stop, nil
		}
		time.Sleep(25 * time.Millisecond)
	}
	err = stop()
	return nil, errors.Join(errors.New("containerd does not answer: "+stderr.String()), err)
}
