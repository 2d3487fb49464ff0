package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/internal/overlayfs"
)

func doctorCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "doctor", Category: "Conveniences",
		Usage:     "say what works on this machine, and what to do where it does not",
		UsageText: "layerfs doctor",
		Description: `Changes nothing. The exit code is 1 when mounting will not work; other findings are
only told. JSON is an array with the fields name, state (ok, missing or limited),
found and advice.

Example:
   layerfs doctor`,
		Flags: []cli.Flag{formatFlag()},
		Action: func(c *cli.Context) error {
			if err := argCount(c, 0, 0, ""); err != nil {
				return err
			}
			return e.doctor(c.String("format"))
		},
	}
}

// A finding is one line of the doctor's report.
type finding struct {
	Name   string `json:"name"`
	State  string `json:"state"` // ok, limited: something optional does not work, missing: mounting fails
	Found  string `json:"found"`
	Advice string `json:"advice,omitempty"`
}

func ok(name, found string) finding { return finding{name, "ok", found, ""} }

func limited(name, found, advice string) finding { return finding{name, "limited", found, advice} }

func missing(name, found, advice string) finding { return finding{name, "missing", found, advice} }

// doctor prints the findings; its error says that mounting fails.
func (e *env) doctor(format string) error {
	findings := []finding{
		e.findStore(), findKernel(), findDevice(), findHelper(), findAllowOther(),
		findSubIDs(), findPassthrough(), findOverlay(), findWatches(),
	}
	if format != "table" {
		if err := printList(e.stdout, format, findings, table[finding]{}); err != nil {
			return err
		}
	} else if err := printFindings(e.stdout, findings); err != nil {
		return err
	}
	for _, f := range findings {
		if f.State == "missing" {
			return &quietError{errors.New("mounting does not work here")}
		}
	}
	return nil
}

func printFindings(w io.Writer, findings []finding) error {
	tw := tabwriter.NewWriter(w, 4, 2, 2, ' ', 0)
	for _, f := range findings {
		fmt.Fprintf(tw, "%s\t%s\t%s\n", f.State, f.Name, f.Found)
		if f.Advice != "" {
			fmt.Fprintf(tw, "\t\t→ %s\n", f.Advice)
		}
	}
	return tw.Flush()
}

// fileSystems are those whose behaviour the store has been made for; network file
// systems lack flock or mmap coherence.
var fileSystems = map[int64]string{
	unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
	unix.TMPFS_MAGIC: "tmpfs", unix.F2FS_SUPER_MAGIC: "f2fs", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs",
}

func (e *env) findStore() finding {
	root, err := e.storeRoot()
	if err != nil {
		return limited("store", err.Error(), "set HOME, or use --root")
	}
	dir := root
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil {
			break
		}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return limited("store", fmt.Sprintf("%s: %v", root, err), "choose another place with --root")
	}
	free := size(int64(st.Bavail) * st.Bsize)
	name, known := fileSystems[int64(st.Type)]
	switch {
	case unix.Access(dir, unix.W_OK) != nil:
		return limited("store", root+" is not writable for you", "choose another place with --root or LAYERFS_ROOT")
	case !known:
		return limited("store", fmt.Sprintf("%s is on a file system of type %#x, %s free", root, st.Type, free), "put the store on ext4, xfs, btrfs or tmpfs with --root")
	}
	return ok("store", fmt.Sprintf("%s on %s, %s free", root, name, free))
}

func findKernel() finding {
	release, err := kernelRelease()
	if err != nil {
		return limited("kernel", err.Error(), "")
	}
	if olderThan(release, 5, 4) {
		return limited("kernel", "Linux "+release, "use Linux 5.4 or newer")
	}
	return ok("kernel", "Linux "+release)
}

func kernelRelease() (string, error) {
	var u unix.Utsname
	err := unix.Uname(&u)
	return unix.ByteSliceToString(u.Release[:]), err
}

// olderThan says no of a release that is not written in numbers.
func olderThan(release string, major, minor int) bool {
	var a, b int
	_, err := fmt.Sscanf(release, "%d.%d", &a, &b)
	return err == nil && (a < major || a == major && b < minor)
}

func findDevice() finding {
	if _, err := os.Stat("/dev/fuse"); err != nil {
		return missing("FUSE device", "there is no /dev/fuse", "as root: modprobe fuse; in a container: start it with --device /dev/fuse")
	}
	// fusermount3 opens it as the user who called it.
	if unix.Access("/dev/fuse", unix.R_OK|unix.W_OK) != nil {
		return missing("FUSE device", "/dev/fuse is not accessible to you", "as root: chmod 0666 /dev/fuse, which udev does where it runs")
	}
	return ok("FUSE device", "/dev/fuse")
}

// findHelper looks for the program that mounts for ordinary users.
func findHelper() finding {
	const name = "mount helper"
	path, err := fusermount()
	if err != nil && os.Geteuid() == 0 {
		return ok(name, "not needed by root; other users need fusermount3 (apt-get install fuse3)")
	}
	if err != nil {
		return missing(name, "fusermount3 is not installed", "as root: apt-get install fuse3")
	}
	info, err := os.Stat(path)
	if err != nil {
		return missing(name, err.Error(), "as root: apt-get install --reinstall fuse3")
	}
	if info.Mode()&os.ModeSetuid == 0 && os.Geteuid() != 0 {
		return missing(name, path+" is not setuid root", "as root: chmod u+s "+path+"; a container needs to be started without no-new-privileges")
	}
	return ok(name, path)
}

func findAllowOther() finding {
	const name = "other users"
	if os.Geteuid() == 0 {
		return ok(name, "may look into mounts (allow_other)")
	}
	if configured("/etc/fuse.conf", func(line string) bool { return line == "user_allow_other" }) {
		return ok(name, "may look into mounts made with --allow-other")
	}
	return limited(name, "cannot look into your mounts, not even root", "as root: echo user_allow_other >> /etc/fuse.conf")
}

func findSubIDs() finding {
	const name = "owners of files"
	if os.Geteuid() == 0 {
		return ok(name, "are shown as in the image (idmap none)")
	}
	u, err := user.Current()
	if err != nil {
		return limited(name, err.Error(), "")
	}
	mine := func(line string) bool {
		return strings.HasPrefix(line, u.Username+":") || strings.HasPrefix(line, u.Uid+":")
	}
	if configured("/etc/subuid", mine) && configured("/etc/subgid", mine) {
		return ok(name, "are shown in your subordinate range (idmap auto)")
	}
	return limited(name, "are all shown as you (idmap squash): you have no subordinate IDs",
		"as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 "+u.Username)
}

func findPassthrough() finding {
	const name = "passthrough"
	if os.Geteuid() != 0 {
		return limited(name, "needs root; everything else does without it", "")
	}
	release, err := kernelRelease()
	if err != nil {
		return limited(name, err.Error(), "")
	}
	if olderThan(release, 6, 9) {
		return limited(name, "needs Linux 6.9", "")
	}
	return ok(name, "mount -o passthrough reads large files at the speed of the disk")
}

// findOverlay says who writes into containers.
func findOverlay() finding {
	const name = "kernel overlay"
	if err := overlayfs.Possible(); err != nil {
		return limited(name, err.Error(), "")
	}
	return ok(name, "writes into containers (layerfs mount --container)")
}

// findWatches tries what a mount uses to see new images at once.
func findWatches() finding {
	const name = "new images"
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return limited(name, "appear in mounts after a moment: "+err.Error(), "as root: sysctl fs.inotify.max_user_instances=1024")
	}
	unix.Close(fd)
	return ok(name, "appear in mounts at once (inotify)")
}

// configured says whether a line of a file fits, comments left out.
func configured(path string, fits func(line string) bool) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if fits(strings.TrimSpace(s.Text())) {
			return true
		}
	}
	return false
}
