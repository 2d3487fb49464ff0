package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// machine says where the numbers come from, a line each.
func (b *bench) machine() []string {
	var u unix.Utsname
	release := ""
	if unix.Uname(&u) == nil {
		release = unix.ByteSliceToString(u.Release[:])
	}
	var mem unix.Sysinfo_t
	_ = unix.Sysinfo(&mem)
	var versions []string
	for _, p := range [][]string{
		{b.binary, "version"},
		{"podman", "--version"},
		{"fuse-overlayfs", "--version"},
		{"tar", "--version"},
		{"ostree", "--version"},
		{"umoci", "--version"},
		{"skopeo", "--version"},
		{"containerd", "--version"},
		{"git", "--version"},
		{"pigz", "--version"},
		{"zstd", "--version"},
	} {
		if v := firstLine(p[0], p[1:]...); v != "" {
			versions = append(versions, v)
		}
	}
	images := "made by bench"
	if b.images != "" {
		images = "given"
	}
	return []string{
		fmt.Sprintf("machine: %s, %d CPUs, %d MB of memory, Linux %s, %s", model(), runtime.NumCPU(), mem.Totalram*uint64(mem.Unit)/1e6, release, fsName(b.work)),
		fmt.Sprintf("load when it began: %s; when it ended: %s; it took %s", b.loadBefore, load(), time.Since(b.began).Round(time.Second)),
		"programs: " + strings.Join(versions, "; "),
		fmt.Sprintf("images: %s; %d runs of each side, loads %d", images, b.n, b.loads()),
	}
}

// load is how busy the machine has been for 1, 5 and 15 minutes.
func load() string {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(data))[:3], " ")
}

// loads is how often loads are measured, which take longest.
func (b *bench) loads() int { return max(1, b.n*3/5) }

func model() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if name, value, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

func firstLine(name string, args ...string) string {
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		return ""
	}
	text := string(out)
	if strings.HasPrefix(text, "libostree") {
		return strings.Join(strings.Fields(text)[:3], " ")
	}
	for l := range strings.Lines(text) {
		// fuse-overlayfs asks fusermount3 first.
		if !strings.HasPrefix(l, "fusermount3") {
			return strings.TrimSpace(l)
		}
	}
	return ""
}

func fsName(dir string) string {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return "?"
	}
	switch st.Type {
	case unix.EXT4_SUPER_MAGIC:
		return "ext4"
	case unix.XFS_SUPER_MAGIC:
		return "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	case unix.TMPFS_MAGIC:
		return "tmpfs"
	}
	return fmt.Sprintf("file system %#x", st.Type)
}
