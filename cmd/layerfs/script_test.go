package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/layerfs/layerfs/internal/registrytest"
	"github.com/layerfs/layerfs/internal/testenv"
)

// TestMain makes the test binary serve as the commands that scripts call.
func TestMain(m *testing.M) {
	testscript.Main(cleaner{m}, map[string]func(){
		"layerfs":    main,
		"mkimage":    mkimageMain,
		"asuser":     asUser,
		"killmounts": killMounts,
	})
}

// A cleaner removes what the scripts share when all have run.
type cleaner struct{ *testing.M }

func (c cleaner) Run() int {
	code := c.M.Run()
	if dir := os.Getenv(userBinVariable); dir != "" {
		os.RemoveAll(dir)
	}
	return code
}

// TestScripts runs testdata/script/*.txtar: each is a story that a user could
// live, with real processes, mounts and exit codes.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join(testenv.ModuleRoot(t), "testdata", "script"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               setupScript,
		Condition:           condition,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code": cmdCode, "sha256": cmdSHA256, "corrupt": cmdCorrupt, "same": cmdSame,
			"registry": cmdRegistry,
		},
	})
}

func setupScript(e *testscript.Env) error {
	work := e.WorkDir
	e.Defer(func() { detachBelow(work) })
	for _, dir := range []string{filepath.Dir(work), work} {
		if err := os.Chmod(dir, 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(work, 0o777); err != nil {
		return err
	}
	// Short paths: they are part of tables and messages that scripts compare.
	e.Setenv("LAYERFS_ROOT", filepath.Join(work, "store"))
	e.Setenv("LAYERFS_RUNROOT", filepath.Join(work, "run"))
	e.Setenv("HOME", filepath.Join(work, "home"))
	e.Setenv("BINDIR", filepath.SplitList(e.Getenv("PATH"))[0])
	e.Setenv("TZ", "UTC")
	e.Setenv("LC_ALL", "C")
	if dir := e.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		e.Setenv("XDG_RUNTIME_DIR", "")
	}
	e.Values[testingTB{}] = e.T().(testing.TB)
	if err := testenv.Have("shared"); err == nil {
		e.Setenv("SHARED", testenv.Shared(e.T().(testing.TB)))
	}
	if os.Geteuid() == 0 && testenv.Have("user") == nil {
		a := testenv.User(e.T().(testing.TB))
		bin, err := userBin()
		if err != nil {
			return err
		}
		e.Setenv("ASUSER_ID", fmt.Sprintf("%d:%d:%s:%s", a.UID, a.GID, a.Name, a.Home))
		e.Setenv(userBinVariable, bin)
	}
	return nil
}

// detachBelow unmounts lazily what a script has left mounted.
func detachBelow(dir string) {
	list, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return
	}
	for i := len(list) - 1; i >= 0; i-- {
		testenv.Detach(list[i].Mountpoint)
	}
}

// condition answers [fuse], [root] and whatever else testenv knows. What must not
// be skipped is an error here, so that "[!fuse] skip" fails.
func condition(cond string) (bool, error) {
	err := testenv.Have(cond)
	if err != nil && testenv.Demanded(cond) {
		return false, fmt.Errorf("%s is demanded: %w", cond, err)
	}
	return err == nil, nil
}

// cmdCode runs a command and compares its exit code: code 3 layerfs inspect x.
func cmdCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N command [args...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if out := ts.ReadFile("stdout"); out != "" {
		ts.Logf("[stdout]\n%s", out)
	}
	if out := ts.ReadFile("stderr"); out != "" {
		ts.Logf("[stderr]\n%s", out)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// cmdSHA256 sets a variable to the digest of a file: sha256 VAR file.
func cmdSHA256(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: sha256 VAR file")
	}
	ts.Setenv(args[0], hexSum([]byte(ts.ReadFile(args[1]))))
}

// cmdCorrupt flips one bit of a file: corrupt file offset (negative: from the end).
func cmdCorrupt(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: corrupt file offset")
	}
	off, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_RDWR, 0)
	ts.Check(err)
	defer f.Close()
	if off < 0 {
		end, err := f.Seek(0, io.SeekEnd)
		ts.Check(err)
		off += end
	}
	var b [1]byte
	_, err = f.ReadAt(b[:], off)
	ts.Check(err)
	b[0] ^= 0x10
	_, err = f.WriteAt(b[:], off)
	ts.Check(err)
}

// cmdSame says whether two directories hold the same files, by name and content.
func cmdSame(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: [!] same dir dir")
	}
	out, err := exec.Command("diff", "-r", "--no-dereference", ts.MkAbs(args[0]), ts.MkAbs(args[1])).CombinedOutput()
	if (err == nil) == neg {
		ts.Fatalf("diff -r says: %v\n%s", err, out)
	}
}

// testingTB is the key of the test that runs a script.
type testingTB struct{}

// cmdRegistry starts a registry until the script ends: registry VAR [user:password].
// VAR becomes its HOST:PORT.
func cmdRegistry(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: registry VAR [user:password]")
	}
	o := &registrytest.Options{}
	if len(args) == 2 {
		user, password, _ := strings.Cut(args[1], ":")
		out, err := exec.Command("htpasswd", "-Bbn", user, password).Output()
		ts.Check(err)
		o.Htpasswd = string(out)
	}
	ts.Setenv(args[0], registrytest.Start(ts.Value(testingTB{}).(testing.TB), o).Addr)
}

// userBinVariable names the directory with a copy of the command that the ordinary
// user can reach: that of "go test" is the caller's own.
const userBinVariable = "LAYERFS_TEST_USERBIN"

var userBin = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "layerfs-bin-")
	if err != nil {
		return "", err
	}
	os.Setenv(userBinVariable, dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return "", err
	}
	defer self.Close()
	f, err := os.OpenFile(filepath.Join(dir, "layerfs"), os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(f, self)
	return dir, errors.Join(err, f.Close(), os.Symlink("layerfs", filepath.Join(dir, "killmounts")))
})

// killMounts kills everything that serves the mounts of the store: the holders, which would start other servers, and the
// servers. It returns when they are gone.
func killMounts() {
	var list []struct{ PID, Holder int }
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		out, err := exec.Command("layerfs", "mounts", "--format", "json").Output()
		fatal(err, json.Unmarshal(out, &list))
		if !slices.ContainsFunc(list, func(m struct{ PID, Holder int }) bool { return m.Holder == 0 }) {
			break
		}
		if time.Now().After(end) {
			fatal(fmt.Errorf("a mount has no holder: %+v", list))
		}
	}
	for _, m := range list {
		fatal(syscall.Kill(m.Holder, syscall.SIGKILL), syscall.Kill(m.PID, syscall.SIGKILL))
	}
	for _, m := range list {
		for _, pid := range []int{m.Holder, m.PID} {
			for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
				stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
				if err != nil || bytes.Contains(stat, []byte(") Z ")) {
					break
				}
			}
		}
	}
}

// asUser runs a command as the ordinary user: exec asuser layerfs images. For a
// caller that is no root it just runs the command.
func asUser() {
	args := os.Args[1:]
	id := strings.SplitN(os.Getenv("ASUSER_ID"), ":", 4)
	if os.Geteuid() == 0 {
		if len(id) != 4 {
			fatal(errors.New("asuser: there is no ordinary user; begin the script with [!user] skip"))
		}
		uid, err1 := strconv.Atoi(id[0])
		gid, err2 := strconv.Atoi(id[1])
		fatal(err1, err2, syscall.Setgroups([]int{gid}), syscall.Setgid(gid), syscall.Setuid(uid))
		os.Setenv("USER", id[2])
		os.Setenv("PATH", os.Getenv(userBinVariable)+":"+os.Getenv("PATH"))
	}
	path, err := exec.LookPath(args[0])
	fatal(err)
	fatal(syscall.Exec(path, args, os.Environ()))
}

func fatal(errs ...error) {
	if err := errors.Join(errs...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(125)
	}
}
