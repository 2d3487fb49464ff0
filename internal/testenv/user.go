package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// Account is an ordinary user that a test acts as.
type Account struct {
	// Name is the login name.
	Name string
	// UID and GID are its numbers; neither is 0.
	UID, GID int
	// Home is its home directory.
	Home string
}

// User returns the ordinary user for tests: the one that runs the tests, or for
// root the one that LAYERFS_TEST_USER names. Without one the test is skipped
// (or fails, see Require).
func User(t testing.TB) Account {
	t.Helper()
	Require(t, "user")
	a, err := lookupUser()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TempDir is like t.TempDir, but the directory belongs to the account and can
// be reached by it.
func (a Account) TempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "layerfs-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, a.UID, a.GID); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// RunAs returns a command that runs as the account, with HOME and the like set
// for it. It is killed a minute after the call, so that no test hangs.
func RunAs(t testing.TB, a Account, name string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, name, args...)
	a.Apply(cmd)
	return cmd
}

// Apply makes cmd run as the account. Variables that name a directory of the
// calling user do not get through.
func (a Account) Apply(cmd *exec.Cmd) {
	if cmd.Env == nil {
		cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	}
	cmd.Env = append(cmd.Env, "HOME="+a.Home, "USER="+a.Name, "LOGNAME="+a.Name)
	if os.Geteuid() != a.UID {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(a.UID), Gid: uint32(a.GID)}}
	}
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
}

func lookupUser() (Account, error) {
	if os.Geteuid() != 0 {
		u, err := user.Current()
		if err != nil {
			return Account{}, err
		}
		return account(u)
	}
	name := os.Getenv("LAYERFS_TEST_USER")
	if name == "" {
		name = "layerfs-test"
	}
	u, err := user.Lookup(name)
	if err != nil {
		return Account{}, fmt.Errorf("there is no user %s (set LAYERFS_TEST_USER, or useradd -m %s)", name, name)
	}
	return account(u)
}

func account(u *user.User) (Account, error) {
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return Account{}, err
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return Account{}, err
	}
	if uid == 0 {
		return Account{}, errors.New("the user for tests must not be root")
	}
	return Account{Name: u.Username, UID: uid, GID: gid, Home: filepath.Clean(u.HomeDir)}, nil
}
