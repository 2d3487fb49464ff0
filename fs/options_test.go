package fs

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/layerfs/layerfs/layers"
)

func TestParseOwners(t *testing.T) {
	for _, c := range []struct {
		text             string
		uid, gid         uint32
		wantUID, wantGID uint32
	}{
		{"none", 12, 13, 12, 13},
		{"squash", 12, 13, 1000, 1001},
		{"0:1000:1,1:100000:65536", 0, 0, 1000, 1000},
		{"0:1000:1,1:100000:65536", 33, 65536, 100032, 165535},
		{"0:1000:1,1:100000:65536", 65537, 1 << 31, overflowID, overflowID},
		{"5:0:1", 0, 5, overflowID, 0},
	} {
		o, err := parseOwners(c.text, 1000, 1001)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if uid, gid := o.shift(c.uid, c.gid); uid != c.wantUID || gid != c.wantGID {
			t.Errorf("%s: %d:%d becomes %d:%d, want %d:%d", c.text, c.uid, c.gid, uid, gid, c.wantUID, c.wantGID)
		}
	}
	for _, bad := range []string{"x", "1:2", "1:2:0", "1:2:3:4", "-1:2:3", "0:0:4294967296", "0:0:10,5:100:10", "0:4294967295:2", "1:2:3,"} {
		if _, err := parseOwners(bad, 1000, 1000); !errors.Is(err, ErrOption) {
			t.Errorf("%q: got %v, want an option error", bad, err)
		}
	}
}

func TestSubRanges(t *testing.T) {
	file := t.TempDir() + "/subuid"
	text := "# comment\nsomebody:1:2\n4242:100000:65536\n4242:300000:10\n4242:x:y\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := subRanges(file, 4242, 7)
	if err != nil {
		t.Fatal(err)
	}
	want := []idRange{{0, 7, 1}, {1, 100000, 65536}, {65537, 300000, 10}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(idRange{})); diff != "" {
		t.Error(diff)
	}
	if got, err := subRanges(file+".none", 4242, 7); err != nil || len(got) != 1 {
		t.Errorf("without a file: %v, %v", got, err)
	}
}

func TestOptions(t *testing.T) {
	yes := true
	o := &Options{AllowOther: &yes, Extra: []string{"ro,noatime,idmap=0:1000:1,1:100000:65536,noexec", "fsname=x,x-gvfs-show"}}
	s, err := o.settle("store")
	if err != nil {
		t.Fatal(err)
	}
	if s.mount.Source != "x" || !s.mount.NoExec || !s.mount.AllowOther || s.owners.text != "0:1000:1,1:100000:65536" {
		t.Errorf("%+v", s)
	}
	for opt, text := range map[string]string{"auto_unmount": "clean", "nosuchthing": "nosuchthing", "idmap=zero": "squash"} {
		_, err := (&Options{Extra: []string{opt}}).settle("store")
		if !errors.Is(err, ErrOption) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", opt, err)
		}
	}
	if s, err := (*Options)(nil).settle("store"); err != nil || s.log == nil || s.mount.AllowOther != (os.Geteuid() == 0) {
		t.Errorf("nil: %+v, %v", s, err)
	}
}

func TestPathOf(t *testing.T) {
	for name, want := range map[string]string{
		"docker.io/library/debian:12": "docker.io/library/debian@12",
		"localhost:5000/a/b:v1":       "localhost@5000/a/b@v1",
		"x/y@sha256:ab":               "x/y@sha256@ab",
	} {
		if got := layers.PathOfName(name); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	for _, bad := range []string{"", "a//b", "../a", "a/.", "a/\x00", strings.Repeat("x", 256)} {
		if validPath(bad) {
			t.Errorf("%q is valid", bad)
		}
	}
}

// TestErrnoTable wants every error that package layers promises in the table.
func TestErrnoTable(t *testing.T) {
	table, err := os.ReadFile("errno.go")
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := parser.ParseFile(token.NewFileSet(), "../layers/errors.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for name, obj := range parsed.Scope.Objects { //nolint:staticcheck // a scope is all that is wanted
		if obj.Kind == ast.Var && ast.IsExported(name) && !strings.Contains(string(table), "layers."+name+",") {
			t.Errorf("layers.%s is not in the table", name)
		}
	}
	f := &fileSystem{log: quiet}
	for _, e := range errnos {
		if got := f.errno(errors.Join(errors.New("somewhere"), e.target)); got != e.errno {
			t.Errorf("%v: got %v, want %v", e.target, got, e.errno)
		}
	}
	if got := f.errno(errors.New("unheard of")); got != syscall.EIO {
		t.Errorf("unknown error: %v", got)
	}
}
