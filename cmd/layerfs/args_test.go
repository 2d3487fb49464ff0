package main

import (
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestArrange(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{"images", "images"},
		{"load app.tar -q", "load -q -- app.tar"},
		{"load app.tar --name x -q", "load --name x -q -- app.tar"},
		{"load --name=x app.tar", "load --name=x -- app.tar"},
		{"--root /r load app.tar -i", "--root /r load -i -- app.tar"},
		{"--root=/r images x -f reference=y", "--root=/r images -f reference=y -- x"},
		{"diff -- -x -o", "diff -- -x -o"},
		{"diff a -- -o", "diff -- a -o"},
		{"load -", "load -- -"},
		{"load --unknown a", "load --unknown -- a"},
		{"nosuch a -b", "nosuch a -b"},
		{"inspect -- " + completionFlag, "inspect -- " + completionFlag},
		{"inspect a " + completionFlag, "inspect a " + completionFlag},
		// As mount(8) calls.
		{"/store /mnt -o ro,dev", "--root /store mount --helper -o ro,dev -- /mnt"},
		{"none /mnt -o ro", "mount --helper -o ro -- /mnt"},
		{"/store /mnt", "--root /store mount --helper -- /mnt"},
		{"moutn /mnt", "moutn /mnt"},
		{"mount /mnt", "mount -- /mnt"},
		{"/store mnt", "/store mnt"},
	} {
		app := newApp(&env{stdout: io.Discard, stderr: io.Discard})
		got := arrange(app, append([]string{"layerfs"}, strings.Fields(test.in)...))
		if diff := cmp.Diff("layerfs "+test.want, strings.Join(got, " ")); diff != "" {
			t.Errorf("%s: %s", test.in, diff)
		}
	}
}

func TestNearest(t *testing.T) {
	app := newApp(&env{stdout: io.Discard, stderr: io.Discard})
	for in, want := range map[string]string{"lod": "load", "umonut": "umount", "imags": "images", "x": "", "frobnicate": "", "": ""} {
		if got := nearest(app.Commands, in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestMatchName(t *testing.T) {
	for _, test := range []struct {
		pattern, name string
		want          bool
	}{
		{"debian", "docker.io/library/debian:12", true},
		{"debian:12", "docker.io/library/debian:12", true},
		{"debian:11", "docker.io/library/debian:12", false},
		{"debian:latest", "docker.io/library/debian:12", false},
		{"deb*", "docker.io/library/debian:12", true},
		{"library/debian", "docker.io/library/debian:12", true},
		{"docker.io/library/debian", "docker.io/library/debian:12", true},
		{"app", "example.com/me/app:1", true},
		{"me/app:1", "example.com/me/app:1", true},
		{"e/app", "example.com/me/app:1", false},
		{"[", "example.com/me/app:1", false},
		{"x", "x/y@sha256:" + strings.Repeat("a", 64), false},
	} {
		if got := matchName(test.pattern, test.name); got != test.want {
			t.Errorf("%q on %q: got %t", test.pattern, test.name, got)
		}
	}
}

func TestParsePlatform(t *testing.T) {
	for in, want := range map[string]string{
		"linux/amd64": "linux/amd64/", "aarch64": "linux/arm64/", "linux/arm/v7": "linux/arm/v7", "armhf": "linux/arm/v7",
	} {
		p, err := parsePlatform(in)
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if got := p.OS + "/" + p.Architecture + "/" + p.Variant; got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
	for _, in := range []string{"", "/", "linux/", "/amd64", "a/b/c/d"} {
		if _, err := parsePlatform(in); err == nil {
			t.Errorf("%q is accepted", in)
		}
	}
}
