package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/moby/sys/mountinfo"
)

// maxUsers is how many users of a busy mount are named.
const maxUsers = 5

// explainBusy adds to EBUSY who uses the mount, as far as the caller may see.
func explainBusy(dir string, err error) error {
	if !errors.Is(err, syscall.EBUSY) {
		return err
	}
	users := append(mountsBelow(dir), processesUsing(dir)...)
	if len(users) == 0 {
		return fmt.Errorf("%w: a process that is not visible to you uses it", err)
	}
	more := ""
	if n := len(users) - maxUsers; n > 0 {
		users, more = users[:maxUsers], fmt.Sprintf(" and %d more", n)
	}
	return fmt.Errorf("%w: in use by %s%s", err, strings.Join(users, ", "), more)
}

// mountsBelow lists what is mounted inside dir.
func mountsBelow(dir string) []string {
	list, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return nil
	}
	var users []string
	for _, m := range list {
		if m.Mountpoint != dir {
			users = append(users, "the mount on "+m.Mountpoint)
		}
	}
	return users
}

// processesUsing lists the processes that have a working directory, root or open
// file inside dir. It only reads links in /proc and never touches the mount.
func processesUsing(dir string) []string {
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	var users []string
	for _, proc := range procs {
		if use := useOf(proc, dir); use != "" {
			name, _ := os.ReadFile(proc + "/comm")
			users = append(users, fmt.Sprintf("process %s (%s, %s)", filepath.Base(proc), strings.TrimSpace(string(name)), use))
		}
	}
	return users
}

// useOf says what a process has inside dir; empty means nothing.
func useOf(proc, dir string) string {
	for _, link := range []struct{ name, use string }{
		{"cwd", "its working directory"}, {"root", "its root"}, {"exe", "its program"},
	} {
		if inside(proc+"/"+link.name, dir) {
			return link.use
		}
	}
	fds, err := filepath.Glob(proc + "/fd/*")
	if err != nil {
		return ""
	}
	for _, fd := range fds {
		if inside(fd, dir) {
			return "an open file"
		}
	}
	return ""
}

func inside(link, dir string) bool {
	target, err := os.Readlink(link)
	return err == nil && (target == dir || strings.HasPrefix(target, strings.TrimSuffix(dir, "/")+"/"))
}
