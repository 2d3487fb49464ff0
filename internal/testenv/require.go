package testenv

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Require skips the test when the machine lacks one of the named things, or
// fails it when LAYERFS_TEST_REQUIRE names that thing. Known names are fuse,
// root, user, overlayfs and shared; any other is a program looked for in PATH.
func Require(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		err := Have(name)
		if err == nil {
			continue
		}
		if Demanded(name) {
			t.Fatalf("%s: %v (LAYERFS_TEST_REQUIRE or CI forbids to skip this)", name, err)
		}
		t.Skipf("%s: %v", name, err)
	}
}

// Have says whether the machine offers what name stands for; nil means it does,
// an error says what is missing.
func Have(name string) error {
	switch name {
	case "fuse":
		return haveFUSE()
	case "root":
		if os.Geteuid() != 0 {
			return errors.New("the test must run as root")
		}
		return nil
	case "user":
		_, err := lookupUser()
		return err
	case "overlayfs":
		return haveOverlay()
	case "shared":
		_, err := sharedDir()
		return err
	}
	if _, err := exec.LookPath(name); err != nil {
		return fmt.Errorf("program %s is not installed", name)
	}
	return nil
}

// Demanded says whether name must not be skipped here.
func Demanded(name string) bool {
	if name == "shared" && os.Getenv("CI") == "true" {
		return true
	}
	list := strings.FieldsFunc(os.Getenv("LAYERFS_TEST_REQUIRE"), func(r rune) bool { return r == ',' || r == ' ' })
	return slices.Contains(list, name)
}

// haveFUSE looks for the device and for the right to mount: as root the
// capability, for everybody else the setuid helper.
func haveFUSE() error {
	if _, err := os.Stat("/dev/fuse"); err != nil {
		return errors.New("there is no /dev/fuse (modprobe fuse)")
	}
	if os.Geteuid() != 0 {
		if _, err := exec.LookPath("fusermount3"); err != nil {
			return errors.New("fusermount3 is not installed (apt-get install fuse3)")
		}
		if unix.Access("/dev/fuse", unix.R_OK|unix.W_OK) != nil {
			return errors.New("/dev/fuse is not accessible (as root: chmod 0666 /dev/fuse)")
		}
		return nil
	}
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	f.Close()
	return haveSysAdmin()
}

func haveOverlay() error {
	list, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return err
	}
	if !strings.Contains(string(list), "\toverlay\n") && exec.Command("modprobe", "overlay").Run() != nil {
		return errors.New("the kernel has no overlayfs")
	}
	return haveSysAdmin()
}

// haveSysAdmin reads the effective capabilities, because root in a container
// often may not mount.
func haveSysAdmin() error {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		hex, ok := strings.CutPrefix(line, "CapEff:")
		if !ok {
			continue
		}
		caps, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
		if err != nil {
			return err
		}
		if caps>>unix.CAP_SYS_ADMIN&1 == 1 {
			return nil
		}
	}
	return errors.New("mounting needs CAP_SYS_ADMIN")
}
