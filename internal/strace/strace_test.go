package strace

import (
	"os/exec"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/layerfs/layerfs/internal/testenv"
)

func TestParse(t *testing.T) {
	got, err := parse(`         syscall     calls
---------------- ---------
           futex       200
          pwrite        12
          openat         3
---------------- ---------
           total       215
`)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]int{"pwrite": 12, "openat": 3}, got); diff != "" {
		t.Error(diff)
	}
	if Sum(got) != 15 {
		t.Errorf("sum %d", Sum(got))
	}
	if _, err := parse("nothing\n"); err == nil {
		t.Error("a table without counts is no error")
	}
}

func TestCount(t *testing.T) {
	testenv.Require(t, "strace")
	got, err := Count(t.Context(), exec.Command("sh", "-c", "cd /; cd /tmp; cd /"))
	if err != nil {
		t.Fatal(err)
	}
	if got["chdir"] != 3 {
		t.Errorf("%d chdir, want 3: %v", got["chdir"], got)
	}
	if _, err := Count(t.Context(), exec.Command("sh", "-c", "exit 3")); err == nil {
		t.Error("a program that fails is no error")
	}
}
