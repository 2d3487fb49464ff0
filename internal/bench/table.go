package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"text/tabwriter"

	"golang.org/x/sys/unix"
)

// A line is one promise and what was measured.
type line struct {
	what         string
	peer         string
	ours, theirs string
	ratio        string
	spread       string
	target       string
	met          bool
}

// ratio adds a line: ours must not be more than target times theirs.
func (b *bench) ratio(what, peer string, ours, theirs samples, of func(sample) float64, target float64) {
	a, sa := ours.median(of)
	p, sp := theirs.median(of)
	r := a / p
	b.add(line{
		what, peer, seconds(a), seconds(p), fmt.Sprintf("%.2f", r), fmt.Sprintf("%.0f%% %.0f%%", 100*sa, 100*sp), fmt.Sprintf("<= %.2f", target), r <= target,
	})
}

// rate is ratio for throughput: ours must be at least target times theirs.
func (b *bench) rate(what, peer string, ours, theirs samples, bytes, peerBytes int64, target float64) {
	a, sa := ours.median(wall)
	p, sp := theirs.median(wall)
	x, y := float64(bytes)/a, float64(peerBytes)/p
	b.add(line{
		what, peer, fmt.Sprintf("%.0f MB/s", x/1e6), fmt.Sprintf("%.0f MB/s", y/1e6), fmt.Sprintf("%.2f", x/y),
		fmt.Sprintf("%.0f%% %.0f%%", 100*sa, 100*sp), fmt.Sprintf(">= %.2f", target), x/y >= target,
	})
}

// bound adds a line without a peer: ours must not be more than target.
func (b *bench) bound(what string, ours, target float64, show func(float64) string, spread float64) {
	b.add(line{what, "-", show(ours), "-", "-", fmt.Sprintf("%.0f%%", 100*spread), "<= " + show(target), ours <= target})
}

func (b *bench) add(l line) {
	b.progress("  %-44s %10s %10s  %s (%s)", l.what, l.ours, l.theirs, l.ratio, l.target)
	b.lines = append(b.lines, l)
}

func seconds(s float64) string {
	switch {
	case s < 1e-3:
		return fmt.Sprintf("%.0f us", s*1e6)
	case s < 1:
		return fmt.Sprintf("%.1f ms", s*1e3)
	}
	return fmt.Sprintf("%.2f s", s)
}

func megabytes(n float64) string { return fmt.Sprintf("%.1f MB", n/1e6) }

func number(n float64) string { return fmt.Sprintf("%.0f", n) }

// print writes the table.
func (b *bench) print(out io.Writer) {
	b.machine(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WORK\tPEER\tLAYERFS\tPEER\tRATIO\tSPREAD\tTARGET\t")
	missed := 0
	for _, l := range b.lines {
		verdict := "ok"
		if !l.met {
			verdict = "MISS"
			missed++
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", l.what, l.peer, l.ours, l.theirs, l.ratio, l.spread, l.target, verdict)
	}
	w.Flush()
	for _, s := range b.skipped {
		fmt.Fprintf(out, "left out: %s\n", s)
	}
	fmt.Fprintf(out, "%d of %d targets met\n", len(b.lines)-missed, len(b.lines))
}

// machine says where the numbers come from.
func (b *bench) machine(out io.Writer) {
	var u unix.Utsname
	release := ""
	if unix.Uname(&u) == nil {
		release = unix.ByteSliceToString(u.Release[:])
	}
	var mem unix.Sysinfo_t
	_ = unix.Sysinfo(&mem)
	load, _ := os.ReadFile("/proc/loadavg")
	fmt.Fprintf(out, "machine: %s, %d CPUs, %d MB, Linux %s, %s, load %s", model(), runtime.NumCPU(), mem.Totalram*uint64(mem.Unit)/1e6, release, fsName(b.work), load)
	fmt.Fprintf(out, "layerfs: %s", firstLine(b.binary, "version"))
	for _, p := range []string{"podman", "fuse-overlayfs", "tar", "ostree"} {
		if v := firstLine(p, "--version"); v != "" {
			fmt.Fprintf(out, "; %s", v)
		}
	}
	images := b.images
	if images == "" {
		images = "made by bench"
	} else {
		images = "given"
	}
	fmt.Fprintf(out, "\nimages: %s; %d runs of each side, loads %d\n\n", images, b.n, b.loads())
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
