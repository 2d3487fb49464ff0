package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// A line is one promise and what was measured, or a comparison without a promise.
type line struct {
	what         string
	peer         string
	ours, theirs string
	ratio        string
	spread       string
	target       string
	verdict      verdict

	topic string // set by add
}

// A verdict says whether a promise was kept.
type verdict string

const (
	met    verdict = "ok"
	missed verdict = "MISS"
	open   verdict = "-" // nothing was promised
)

// kept is the verdict about a promise.
func kept(ok bool) verdict {
	if ok {
		return met
	}
	return missed
}

// ratio adds a line: ours must not be more than target times theirs; 0 promises
// nothing.
func (b *bench) ratio(what, peer string, ours, theirs samples, of func(sample) float64, target float64) {
	a, sa := ours.median(of)
	p, sp := theirs.median(of)
	r := a / p
	l := line{
		what: what, peer: peer, ours: seconds(a), theirs: seconds(p), ratio: fmt.Sprintf("%.2f", r),
		spread: fmt.Sprintf("%.0f%% %.0f%%", 100*sa, 100*sp), target: "-", verdict: open,
	}
	if target > 0 {
		l.target, l.verdict = fmt.Sprintf("<= %.2f", target), kept(r <= target)
	}
	b.add(l)
}

// rate is ratio for throughput: ours must be at least target times theirs.
func (b *bench) rate(what, peer string, ours, theirs samples, bytes, peerBytes int64, target float64) {
	a, sa := ours.median(wall)
	p, sp := theirs.median(wall)
	x, y := float64(bytes)/a, float64(peerBytes)/p
	b.add(line{
		what: what, peer: peer, ours: fmt.Sprintf("%.0f MB/s", x/1e6), theirs: fmt.Sprintf("%.0f MB/s", y/1e6), ratio: fmt.Sprintf("%.2f", x/y),
		spread: fmt.Sprintf("%.0f%% %.0f%%", 100*sa, 100*sp), target: fmt.Sprintf(">= %.2f", target), verdict: kept(x/y >= target),
	})
}

// bound adds a line without a peer: ours must not be more than target.
func (b *bench) bound(what string, ours, target float64, show func(float64) string, spread float64) {
	b.add(line{
		what: what, peer: "-", ours: show(ours), theirs: "-", ratio: "-",
		spread: fmt.Sprintf("%.0f%%", 100*spread), target: "<= " + show(target), verdict: kept(ours <= target),
	})
}

func (b *bench) add(l line) {
	l.topic = b.topic
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
	fmt.Fprint(out, strings.Join(b.machine(), "\n"), "\n\n")
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WORK\tPEER\tLAYERFS\tPEER\tRATIO\tSPREAD\tTARGET\t")
	for _, l := range b.lines {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", l.what, l.peer, l.ours, l.theirs, l.ratio, l.spread, l.target, l.verdict)
	}
	w.Flush()
	for _, s := range b.skipped {
		fmt.Fprintf(out, "left out: %s\n", s)
	}
	fmt.Fprintln(out, b.score())
}

// score counts what was promised and kept.
func (b *bench) score() string {
	promised, ok := 0, 0
	for _, l := range b.lines {
		if l.verdict != open {
			promised++
		}
		if l.verdict == met {
			ok++
		}
	}
	return fmt.Sprintf("%d of %d targets met", ok, promised)
}
