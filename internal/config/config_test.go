package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// write makes a configuration file.
func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func environment(vars map[string]string) func(string) string {
	return func(name string) string { return vars[name] }
}

const full = `# a comment
[storage]
driver = "overlay"
graphroot = "/srv/store"
runroot = "/run/$UID/x"
rootless_storage_path = "$HOME/images"

[storage.options]
additionalimagestores = [
  "/a", "/b",
]
remap-uids = "0:1000:10"

[storage.options.overlay]
mountopt = "nodev"
size = "1G"

[layerfs]
idmap = "squash"
allow-other = false
insecure-registries = ["10.1.0.0/16", "old:5000"]
colour = "blue"
`

func TestPrecedence(t *testing.T) {
	file := write(t, filepath.Join(t.TempDir(), "storage.conf"), full)
	env := map[string]string{"LAYERFS_CONF": file, "HOME": "/home/u"}
	for _, c := range []struct {
		name, flag, env string
		want            Setting
	}{
		{"file", "", "", Setting{Root, []string{"/srv/store"}, file + ":4"}},
		{"environment", "", "/e", Setting{Root, []string{"/e"}, "LAYERFS_ROOT"}},
		{"flag", "/f", "/e", Setting{Root, []string{"/f"}, "--root"}},
	} {
		env["LAYERFS_ROOT"] = c.env
		flags := map[string][]string{}
		if c.flag != "" {
			flags["root"] = []string{c.flag}
		}
		conf, err := Load(Sources{Flags: flags, Getenv: environment(env), System: "/none"})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, conf.Get(Root)); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

func TestFile(t *testing.T) {
	file := write(t, filepath.Join(t.TempDir(), "storage.conf"), full)
	conf, err := Load(Sources{Flags: map[string][]string{"config": {file}}, Getenv: environment(map[string]string{"HOME": "/h"}), UID: 7, System: "/none"})
	if err != nil {
		t.Fatal(err)
	}
	conf.Default(LogLevel, "warn")
	conf.Default(IDMap, "auto")
	want := []Setting{
		{Root, []string{"/srv/store"}, file + ":4"},
		{Runroot, []string{"/run/7/x"}, file + ":5"},
		{Additional, []string{"/a", "/b"}, file + ":9"},
		{UIDMap, []string{"0:1000:10"}, file + ":12"},
		{GIDMap, []string{}, "default"},
		{IDMap, []string{"squash"}, file + ":19"},
		{AllowOther, []string{"false"}, file + ":20"},
		{Insecure, []string{"10.1.0.0/16", "old:5000"}, file + ":21"},
		{LogLevel, []string{"warn"}, "default"},
		{LogFormat, []string{}, "default"},
	}
	if diff := cmp.Diff(want, conf.All()); diff != "" {
		t.Error(diff)
	}
	warning := file + ": keys that layerfs does not know have no effect: storage.driver (line 3), storage.options.overlay (line 14), layerfs.colour (line 22)"
	if diff := cmp.Diff([]string{warning}, conf.Warnings); diff != "" {
		t.Error(diff)
	}
}

// An ordinary user has a file of his own, and of that of the system gets all but the
// directories of root.
func TestFileOfUser(t *testing.T) {
	dir := t.TempDir()
	s := Sources{Getenv: environment(map[string]string{"HOME": dir}), UID: 7, System: write(t, filepath.Join(dir, "system.conf"), full)}
	conf, err := Load(s)
	if err != nil {
		t.Fatal(err)
	}
	if got := conf.Get(Root); got.Value() != dir+"/images" || got.From != s.System+":6" {
		t.Errorf("graphroot of a user: got %+v", got)
	}
	if got := conf.Get(Runroot); got.From != "default" {
		t.Errorf("runroot of a user: got %+v", got)
	}
	if got := conf.Get(Additional); len(got.Values) != 2 {
		t.Errorf("additional stores: got %+v", got)
	}
	own := write(t, filepath.Join(dir, ".config/layerfs/storage.conf"), "[storage]\ngraphroot = '/mine'\n")
	if conf, err = Load(s); err != nil {
		t.Fatal(err)
	}
	if got := conf.Get(Root); got.Value() != "/mine" || conf.File != own || len(conf.Get(Additional).Values) != 0 {
		t.Errorf("own file: got %+v from %s", got, conf.File)
	}
	s.UID = 0
	if conf, err = Load(s); err != nil || conf.Get(Root).Value() != "/srv/store" {
		t.Errorf("root: got %v, %v", conf, err)
	}
}

func TestLists(t *testing.T) {
	s := Sources{Getenv: environment(map[string]string{"LAYERFS_ADDITIONAL_STORES": "/a:/b"}), System: "/none"}
	conf, err := Load(s)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"/a", "/b"}, conf.Get(Additional).Values); diff != "" {
		t.Error(diff)
	}
	s.Flags = map[string][]string{"additional-store": {""}}
	if conf, err = Load(s); err != nil || len(conf.Get(Additional).Values) != 0 {
		t.Errorf("an empty flag: got %v, %v; want no store", conf.Get(Additional), err)
	}
}

func TestBroken(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]string{
		"[storage\n":                                      "line 2",
		"[storage]\ngraphroot = 5\n":                      "line 2",
		"\n\n[layerfs]\nallow-other = 'x'":                "line 4",
		"[storage]\n\nrunroot = 'run'":                    ".conf:3: storage.runroot: \"run\" is not an absolute path",
		"[storage]\ngraphroot = '$TMP/x'":                 ".conf:2: storage.graphroot: $TMP is not set",
		"storage = 3":                                     "line 1",
		"[storage]\ngraphroot = '/a'\ngraphroot = '/b'\n": "line 3",
	} {
		file := write(t, filepath.Join(dir, "x.conf"), text)
		_, err := Load(Sources{Flags: map[string][]string{"config": {file}}, Getenv: environment(nil)})
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), file) {
			t.Errorf("%q: got %v, want ErrInvalid with the file and %q", text, err, want)
		}
	}
	_, err := Load(Sources{Flags: map[string][]string{"config": {dir + "/none"}}, Getenv: environment(nil)})
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: got %v, want ErrNotExist", err)
	}
	if _, err := Load(Sources{Getenv: environment(nil), System: dir}); err == nil {
		t.Error("a directory was read as a file")
	}
}

func FuzzFile(f *testing.F) {
	f.Add(full)
	f.Add("[storage]\nx.y.\"a]b\" = 1\n[[layerfs]]\n")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		file := write(t, filepath.Join(dir, "f.conf"), text)
		_, err := Load(Sources{Flags: map[string][]string{"config": {file}}, Getenv: environment(nil)})
		if err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("got %v, want ErrInvalid", err)
		}
	})
}
