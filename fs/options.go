package fs

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strings"

	"github.com/layerfs/layerfs/fs/internal/mount"
	"github.com/layerfs/layerfs/fs/internal/wire"
)

// ErrOption is returned for a mount option that is not known or cannot be had here.
var ErrOption = errors.New("mount option")

// Errors of mounting and unmounting.
var (
	// ErrNoHelper is returned when an ordinary user wants to mount and fusermount3 is not installed.
	ErrNoHelper = mount.ErrNoHelper
	// ErrNoDevice is returned when there is no usable /dev/fuse.
	ErrNoDevice = mount.ErrNoDevice
	// ErrMountBusy is returned by Unmount for a mount that a process uses.
	ErrMountBusy = mount.ErrBusy
	// ErrNotMounted is returned when there is nothing to unmount.
	ErrNotMounted = mount.ErrNotMounted
	// ErrMountPermission is returned when the system lets this user not mount or unmount there.
	ErrMountPermission = mount.ErrPermission
)

// Options change how a store is mounted. The zero value, and a nil *Options, mean the defaults.
type Options struct {
	// AllowOther lets other users in. nil means yes for root, no for an ordinary user, whom fusermount3 allows it only
	// where /etc/fuse.conf does.
	AllowOther *bool
	// IDMap shifts the owners of the files of images: "none" (the default of root), "auto" (0 is the user, the rest
	// lies in the subordinate IDs; the default of users), "squash" (everything belongs to the user), or
	// CONTAINER:HOST:COUNT[,...].
	IDMap string
	// UIDMap and GIDMap shift users and groups differently, each CONTAINER:HOST:COUNT[,...]; of one that is empty the
	// other is used. They exclude IDMap.
	UIDMap, GIDMap string
	// Passthrough lets the kernel read large files from the store by itself. Only root can; it costs one level of file
	// system stacking and a request per opened file.
	Passthrough bool
	// Containers is the directory on which the containers are mounted beside the images; it is made, and removed in the
	// end. DIR/containers is a symbolic link to it. Empty means that containers are not shown. See Mount.
	Containers string
	// Extra are options as after -o, each a list with commas.
	Extra []string
	// Workers is the number of threads that answer requests; 0 lets the package choose.
	Workers int
	// Logger gets what happens while nobody waits for a result; nil means slog.Default().
	Logger *slog.Logger
	// Keeper gets what another process needs to go on with the mount, after Handover was called; nil: the mount ends
	// with this one.
	Keeper Keeper
	// Left is what a process that is gone has left with its Keeper. The mount is then not made but taken over: the other
	// options should be those that it was made with.
	Left map[string]Kept
	// Process says what status.json shows of who keeps the mount; nil: nothing.
	Process func() any
}

// resumes reports whether the options are for a mount that is taken over.
func (o *Options) resumes() bool { return o != nil && len(o.Left) > 0 }

// settings are Options after all defaults.
type settings struct {
	mount       mount.Options
	owners      owners
	passthrough bool
	writeback   bool // of containers, see attach
	containers  string
	workers     int
	log         *slog.Logger
	keeper      Keeper
	left        map[string]Kept
	process     func() any
}

// ignored are options that change nothing here: what is always so, what mount(8) passes to every helper, and what is
// meant for others who read /etc/fstab.
var ignored = map[string]bool{
	"ro": true, "rw": true, "default_permissions": true, "defaults": true, "async": true, "sync": true,
	"atime": true, "noatime": true, "relatime": true, "norelatime": true, "strictatime": true, "diratime": true,
	"nodiratime": true, "lazytime": true, "nolazytime": true,
	"auto": true, "noauto": true, "user": true, "nouser": true, "users": true, "nofail": true, "_netdev": true,
}

// refused are options of libfuse and others that somebody may expect, and why they are not accepted.
var refused = map[string]string{
	"auto_unmount": "fusermount3 would have to stay alive beside the server; a dead mount is cleaned by the next mount",
	"allow_root":   "the kernel does not know it; use allow_other",
	"nonempty":     "a directory need not be empty anyway",
	"direct_io":    "it would turn the kernel's cache off, which is where the speed comes from",
}

// settle fills in the defaults.
func (o *Options) settle(source string) (*settings, error) {
	if o == nil {
		o = &Options{}
	}
	euid, egid := os.Geteuid(), os.Getegid()
	s := &settings{
		mount:       mount.Options{Source: source, Subtype: "layerfs", AllowOther: euid == 0, MaxRead: wire.MaxRead},
		passthrough: o.Passthrough, containers: o.Containers, workers: o.Workers, log: o.Logger,
		keeper: o.Keeper, left: o.Left, process: o.Process,
	}
	if s.keeper == nil {
		s.keeper = nobody{}
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	if o.AllowOther != nil {
		s.mount.AllowOther = *o.AllowOther
	}
	maps := idOptions{o.IDMap, o.UIDMap, o.GIDMap}
	for _, opt := range splitOptions(o.Extra) {
		if err := s.apply(opt, &maps); err != nil {
			return nil, err
		}
	}
	if s.passthrough && euid != 0 {
		return nil, fmt.Errorf("%w passthrough: only root may give files to the kernel; mount without it", ErrOption)
	}
	if s.mount.Label != "" {
		if err := labelPossible(euid); err != nil {
			return nil, err
		}
	}
	var err error
	s.owners, err = maps.owners(euid, egid)
	return s, err
}

// idOptions are the options that shift owners.
type idOptions struct{ idmap, uidmap, gidmap string }

// owners understands the options.
func (m idOptions) owners(uid, gid int) (o owners, err error) {
	switch {
	case m.uidmap == "" && m.gidmap == "":
		o, err = parseOwners(m.idmap, uid, gid)
	case m.idmap != "":
		return o, fmt.Errorf("%w idmap excludes uidmap and gidmap", ErrOption)
	default:
		o, err = parseMaps(m.uidmap, m.gidmap)
	}
	o.explicit = m != idOptions{}
	return o, err
}

// labelPossible says why a mount cannot have an SELinux label.
func labelPossible(euid int) error {
	if euid != 0 {
		return fmt.Errorf("%w context is refused: only root may give a mount an SELinux label", ErrOption)
	}
	list, err := os.ReadFile("/proc/filesystems")
	if err != nil || !strings.Contains(string(list), "\tselinuxfs\n") {
		return fmt.Errorf("%w context is refused: this kernel has no SELinux", ErrOption)
	}
	return nil
}

// apply understands one option.
func (s *settings) apply(opt string, maps *idOptions) error {
	name, value, _ := strings.Cut(opt, "=")
	switch name {
	case "allow_other":
		s.mount.AllowOther = true
	case "passthrough":
		s.passthrough = true
	case "writeback":
		s.writeback = true
	case "idmap":
		maps.idmap = value
	case "uidmap":
		maps.uidmap = value
	case "gidmap":
		maps.gidmap = value
	case "context", "fscontext", "defcontext", "rootcontext":
		s.mount.Label = joinLabel(s.mount.Label, name, strings.Trim(value, `"`))
	case "fsname":
		s.mount.Source = value
	case "suid", "nosuid":
		s.mount.Suid = name == "suid"
	case "dev", "nodev":
		s.mount.Dev = name == "dev"
	case "exec", "noexec":
		s.mount.NoExec = name == "noexec"
	default:
		if ignored[name] || strings.HasPrefix(name, "x-") {
			return nil
		}
		if why, ok := refused[name]; ok {
			return fmt.Errorf("%w %s is refused: %s", ErrOption, name, why)
		}
		return fmt.Errorf("%w %s is not known; known are allow_other, passthrough, writeback, idmap=, uidmap=, gidmap=, context=, fsname=, [no]suid, [no]dev, [no]exec", ErrOption, name)
	}
	return nil
}

// joinLabel adds one of the options of SELinux, whose value may hold commas.
func joinLabel(label, name, value string) string {
	if label != "" {
		label += ","
	}
	return label + name + `="` + value + `"`
}

// rangeOption is the continuation of a list after idmap= and its like, which hold commas themselves, and
// categoryOption that of an SELinux label.
var (
	rangeOption    = regexp.MustCompile(`^[0-9]+:[0-9]+:[0-9]+$`)
	mapOption      = regexp.MustCompile(`^(id|uid|gid)map=`)
	categoryOption = regexp.MustCompile(`^c[0-9]+(\.c[0-9]+)?"?$`)
	labelOption    = regexp.MustCompile(`^(fs|def|root)?context=`)
)

// splitOptions splits lists at commas.
func splitOptions(lists []string) []string {
	var all []string
	for _, list := range lists {
		for opt := range strings.SplitSeq(list, ",") {
			last := len(all) - 1
			switch {
			case opt == "":
			case last >= 0 && mapOption.MatchString(all[last]) && rangeOption.MatchString(opt),
				last >= 0 && labelOption.MatchString(all[last]) && categoryOption.MatchString(opt):
				all[last] += "," + opt
			default:
				all = append(all, opt)
			}
		}
	}
	return all
}
