package testenv

import (
	"os"
	"strings"
	"testing"
)

// recorder is a testing.TB that notes how a test would have ended.
type recorder struct {
	testing.TB
	skipped, failed string
}

func (r *recorder) Helper() {}

func (r *recorder) Skipf(format string, _ ...any) { r.skipped = format }

func (r *recorder) Fatalf(format string, _ ...any) {
	r.failed = format
	panic(r) // as Fatalf does, end the caller
}

func require(name string) (r *recorder) {
	r = &recorder{}
	defer func() { _ = recover() }()
	Require(r, name)
	return r
}

func TestRequire(t *testing.T) {
	t.Setenv("LAYERFS_TEST_REQUIRE", "no-such-program,fuse")
	if r := require("no-such-program"); r.failed == "" {
		t.Error("a demanded program was skipped")
	}
	if r := require("no-such-other-program"); r.skipped == "" || r.failed != "" {
		t.Errorf("skipped %q, failed %q: want a skip", r.skipped, r.failed)
	}
	if r := require("go"); r.skipped != "" || r.failed != "" {
		t.Errorf("skipped %q, failed %q for a program that exists", r.skipped, r.failed)
	}
}

func TestSharedNamesTheVariable(t *testing.T) {
	t.Setenv("LAYERFS_TEST_SHARED", t.TempDir())
	t.Setenv("CI", "")
	err := Have("shared")
	if err == nil || !strings.Contains(err.Error(), "LAYERFS_TEST_SHARED") {
		t.Errorf("got %v, want an error that names LAYERFS_TEST_SHARED", err)
	}
	t.Setenv("CI", "true")
	if !Demanded("shared") {
		t.Error("CI=true does not demand the shared data")
	}
}

func TestRunAs(t *testing.T) {
	a := User(t)
	dir := a.TempDir(t)
	out, err := RunAs(t, a, "sh", "-c", "id -u; touch "+dir+"/x; echo $HOME").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), a.Home) {
		t.Errorf("got %q, want the home directory %s in it", out, a.Home)
	}
	if _, err := os.Stat(dir + "/x"); err != nil {
		t.Error(err)
	}
}
