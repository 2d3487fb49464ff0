package overlayfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Source is the first column of mount(8) for mounts of this package.
const Source = "layerfs"

// ErrImpossible is returned when this process cannot mount an overlay; the text says
// why.
var ErrImpossible = errors.New("the kernel's overlayfs cannot be mounted here")

// Options describe an overlay.
type Options struct {
	Lower       string // is only read
	Upper, Work string // on one file system
	// User: the marks in Upper are attributes of the kind user.overlay, which somebody
	// without rights on the host can set. Without them the kernel copies a file for a
	// change of its attributes, and directories of Lower cannot be renamed but by copying.
	User bool
	// Flags of mount(2), such as MS_NOSUID.
	Flags uintptr
}

// Mount mounts an overlay at dir.
func Mount(dir string, o *Options) error {
	if err := Possible(); err != nil {
		return err
	}
	base := "lowerdir=" + escape(o.Lower, true) + ",upperdir=" + escape(o.Upper, false) + ",workdir=" + escape(o.Work, false)
	var err error
	for _, features := range features(o.User) {
		err = unix.Mount(Source, dir, "overlay", o.Flags, base+features)
		// EINVAL stands for an option that this kernel does not have.
		if !errors.Is(err, unix.EINVAL) {
			break
		}
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: mount on %s: %w", ErrImpossible, dir, err)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w: mount on %s: %w; the kernel's log (dmesg) says more: the file system of %s may lack what an overlay needs", ErrImpossible, dir, err, o.Upper)
	}
	return fmt.Errorf("overlay mount on %s: %w", dir, err)
}

// features are the options to try, the best first. The index is off because the file
// handles that it needs are not to be had of a lower FUSE file system; volatile is
// never used, because it forgets what was synced.
func features(user bool) []string {
	if user {
		return []string{",userxattr,index=off,xino=auto", ",userxattr"}
	}
	return []string{",metacopy=on,redirect_dir=on,index=off,xino=auto", ",index=off,xino=auto", ""}
}

// escape protects the characters that separate options, and lower directories.
func escape(path string, lower bool) string {
	path = strings.NewReplacer(`\`, `\\`, ",", `\,`).Replace(path)
	if lower {
		path = strings.ReplaceAll(path, ":", `\:`)
	}
	return path
}

// Possible returns nil when this process may mount overlays.
func Possible() error {
	types, err := os.ReadFile("/proc/filesystems")
	if err == nil && !strings.Contains(string(types), "\toverlay\n") && os.Geteuid() != 0 {
		return fmt.Errorf("%w: the kernel does not have it loaded (modprobe overlay)", ErrImpossible)
	}
	if !maySysAdmin() {
		return fmt.Errorf("%w: only root may, or who is root of a user namespace (unshare -Urm, podman unshare)", ErrImpossible)
	}
	return nil
}

// maySysAdmin reports whether the process has the capability that mount(2) asks for.
func maySysAdmin() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	return data[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0
}

// Over returns the mount points of the overlays whose upper directory is upper, as
// far as this mount namespace shows them.
func Over(upper string) ([]string, error) {
	list, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("overlay"))
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, m := range list {
		if upperOf(m.VFSOptions) == upper {
			dirs = append(dirs, m.Mountpoint)
		}
	}
	return dirs, nil
}

// Ours reports whether the topmost mount at dir is one of this package.
func Ours(dir string) (bool, error) {
	m, err := ours(dir)
	return m != nil, err
}

// ours returns the topmost mount at dir if it is one of this package.
func ours(dir string) (*mountinfo.Info, error) {
	list, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(filepath.Clean(dir)))
	if err != nil || len(list) == 0 {
		return nil, err
	}
	if m := list[len(list)-1]; m.FSType == "overlay" && m.Source == Source {
		return m, nil
	}
	return nil, nil
}

// Dead reports whether the topmost mount at dir is one of this package of which nobody
// holds the lock: that on the directory in which its upper directory lies.
func Dead(dir string) (bool, error) {
	m, err := ours(dir)
	if err != nil || m == nil {
		return false, err
	}
	upper := upperOf(m.VFSOptions)
	if upper == "" {
		return false, nil
	}
	return unlocked(filepath.Dir(upper))
}

// upperOf returns the upper directory from the options in a line of mountinfo. The
// kernel shows them as they were given, and then writes some characters in octal.
func upperOf(options string) string {
	_, text, ok := strings.Cut(","+options, ",upperdir=")
	if !ok {
		return ""
	}
	text = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\054`, ",", `\134`, `\`).Replace(text)
	var path strings.Builder
	for i := 0; i < len(text) && text[i] != ','; i++ {
		if text[i] == '\\' && i+1 < len(text) {
			i++
		}
		path.WriteByte(text[i])
	}
	return path.String()
}

func unlocked(dir string) (bool, error) {
	f, err := os.Open(dir)
	if errors.Is(err, os.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

// Unmount takes the overlay at dir away; with lazy also from those who use it.
func Unmount(dir string, lazy bool) error {
	flags := unix.UMOUNT_NOFOLLOW
	if lazy {
		flags |= unix.MNT_DETACH
	}
	if err := unix.Unmount(dir, flags); err != nil {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return nil
}
