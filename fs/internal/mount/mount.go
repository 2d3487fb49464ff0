// Package mount attaches a /dev/fuse descriptor to a directory and takes it away again: with mount(2) when the process
// may, else with fusermount3(1), the setuid helper of libfuse.
//
// The descriptor stays with the caller, which can therefore hand it to another process.
package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

var (
	// ErrNoHelper is returned when an ordinary user wants to mount and fusermount3 is not installed.
	ErrNoHelper = errors.New("fusermount3 is not installed: run `apt install fuse3` (or your distribution's package of that name)")

	// ErrNoDevice is returned when /dev/fuse does not exist or may not be opened.
	ErrNoDevice = errors.New("/dev/fuse cannot be used: run `modprobe fuse`, or give the container the device (--device /dev/fuse)")

	// ErrBusy is returned when a mount cannot be taken away because a process uses it.
	ErrBusy = errors.New("in use: a process has its working directory or an open file in it")

	// ErrNotMounted is returned when there is nothing to take away at a path.
	ErrNotMounted = errors.New("nothing is mounted there")

	// ErrPermission is returned when the system does not let this user mount or unmount there.
	ErrPermission = errors.New("not permitted")
)

// Options say how a file system is mounted. The mount checks permissions (default_permissions) unless Unchecked is set.
type Options struct {
	// Source is the first column of mount(8), Subtype the part of the type after "fuse.".
	Source, Subtype string
	// Writable mounts read-write.
	Writable bool
	// AllowOther lets other users than the owner of the mount in.
	AllowOther bool
	// Suid, Dev and NoExec change the flags nosuid, nodev and exec. Only a process that may mount by itself can set
	// Suid and Dev.
	Suid, Dev, NoExec bool
	// Label are the options for SELinux, such as context="system_u:object_r:container_file_t:s0". Only root may give
	// them.
	Label string
	// Unchecked leaves it to the server who may do what: whoever gets in, which without AllowOther is the owner of the
	// mount alone, is asked for nothing else.
	Unchecked bool
	// MaxRead is the largest READ request.
	MaxRead int
}

// Mount mounts a new FUSE file system at dir, an existing directory, and returns the descriptor that serves it. The
// path should be absolute; see Clean.
func Mount(dir string, o Options) (*os.File, error) {
	if err := check(dir); err != nil {
		return nil, err
	}
	if os.Geteuid() == 0 {
		return mountDirect(dir, o)
	}
	return mountHelper(dir, o)
}

// Clean returns dir as an absolute path without symbolic links, the form in which the kernel lists mounts. It works
// for a dead mount too, which cannot be entered.
func Clean(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		return "", err
	}
	path := filepath.Join(parent, filepath.Base(abs))
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real, nil
	}
	return path, nil
}

// check says in a sentence why dir cannot be mounted on. A directory that is not empty can: fusermount3 and the kernel
// allow it, and what is in it comes back after the unmount.
func check(dir string) error {
	st, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: %w: create it first (mkdir -p)", dir, fs.ErrNotExist)
	case errors.Is(err, unix.ENOTCONN):
		return fmt.Errorf("%s: a mount whose server has died is in the way: unmount it first (umount -l, fusermount3 -uz)", dir)
	case err != nil:
		return err
	case !st.IsDir():
		return fmt.Errorf("%s: %w", dir, unix.ENOTDIR)
	}
	return nil
}

// mountDirect mounts with mount(2).
func mountDirect(dir string, o Options) (*os.File, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", ErrNoDevice, err)
	}
	var flags uintptr
	for _, f := range []struct {
		set  bool
		flag uintptr
	}{{!o.Writable, unix.MS_RDONLY}, {!o.Suid, unix.MS_NOSUID}, {!o.Dev, unix.MS_NODEV}, {o.NoExec, unix.MS_NOEXEC}} {
		if f.set {
			flags |= f.flag
		}
	}
	data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d", fd, os.Geteuid(), os.Getegid())
	if !o.Unchecked {
		data += ",default_permissions"
	}
	if o.AllowOther {
		data += ",allow_other"
	}
	if o.MaxRead > 0 {
		data += fmt.Sprintf(",max_read=%d", o.MaxRead)
	}
	if o.Label != "" {
		data += "," + o.Label
	}
	if err := unix.Mount(o.Source, dir, "fuse."+o.Subtype, flags, data); err != nil {
		unix.Close(fd)
		if errors.Is(err, unix.EPERM) {
			return nil, fmt.Errorf("%s: %w to mount: CAP_SYS_ADMIN is missing (in a container: --cap-add SYS_ADMIN --device /dev/fuse)", dir, ErrPermission)
		}
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	return os.NewFile(uintptr(fd), "/dev/fuse"), nil
}

// Unmount takes the mount at dir away. With lazy it goes at once from the tree of files and ends when its last user
// does, else a mount in use is left and reported as ErrBusy.
func Unmount(dir string, lazy bool) error {
	if os.Geteuid() != 0 {
		return unmountHelper(dir, lazy)
	}
	flags := unix.UMOUNT_NOFOLLOW
	if lazy {
		flags |= unix.MNT_DETACH
	}
	switch err := unix.Unmount(dir, flags); err {
	case nil:
		return nil
	case unix.EBUSY:
		return fmt.Errorf("%s: %w", dir, ErrBusy)
	case unix.EINVAL, unix.ENOENT:
		return fmt.Errorf("%s: %w", dir, ErrNotMounted)
	case unix.EPERM:
		return fmt.Errorf("%s: %w to unmount", dir, ErrPermission)
	default:
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
}

// CleanDead takes away what is left of mounts at dir whose server has died, and reports whether there was one. Mounts
// can be stacked, so it looks again after each; what lives is left alone.
func CleanDead(dir string) (bool, error) {
	cleaned := false
	for range 16 {
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); !errors.Is(err, unix.ENOTCONN) {
			return cleaned, nil
		}
		if err := Unmount(dir, true); err != nil {
			return cleaned, err
		}
		cleaned = true
	}
	return cleaned, fmt.Errorf("%s: more than 16 dead mounts on top of each other", dir)
}

// Device returns the minor device number of the mount at dir, its name in /sys/class/bdi and
// /sys/fs/fuse/connections, without touching the mount itself.
func Device(dir string) (minor uint32, ok bool) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(table)) {
		// ID parent major:minor root mountpoint ...; the last line for a mount point is the topmost mount.
		f := strings.Fields(line)
		if len(f) < 5 || unescape(f[4]) != dir {
			continue
		}
		var major uint32
		if _, err := fmt.Sscanf(f[2], "%d:%d", &major, &minor); err == nil {
			ok = true
		}
	}
	return minor, ok
}

// unescape undoes the octal escapes of /proc/self/mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// ReadAhead sets how much the kernel reads ahead on the mount, as far as the process may: only root can.
func ReadAhead(minor uint32, kib int) error {
	return os.WriteFile(fmt.Sprintf("/sys/class/bdi/0:%d/read_ahead_kb", minor), fmt.Appendf(nil, "%d\n", kib), 0)
}

// Abort ends the connection of a mount: every request fails from then on, also those that wait. It needs the fusectl
// file system, which most systems mount.
func Abort(minor uint32) error {
	return os.WriteFile(fmt.Sprintf("/sys/fs/fuse/connections/%d/abort", minor), []byte("1\n"), 0)
}
