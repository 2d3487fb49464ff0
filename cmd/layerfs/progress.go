package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/layerfs/layerfs/layers"
	"github.com/layerfs/layerfs/layers/registry"
)

// A progress shows how an image is loaded: one line per layer that is drawn over
// on a terminal, elsewhere one plain line when a layer is done.
type progress struct {
	mu      sync.Mutex // guards all below
	w       io.Writer
	width   int // of the terminal, 0 when there is none
	layers  map[int]*layerState
	count   int
	drawn   int // lines on the terminal
	lastRun time.Time
	sending bool // layers go out: they are done when they have been transferred
}

// A layerState is what is known of one layer.
type layerState struct {
	layers.Progress
	fetch *registry.Progress // nil when the layer does not come over the network
	since time.Time          // of the first report with bytes
}

// redrawEvery bounds the work that a terminal gets.
const redrawEvery = 100 * time.Millisecond

func newProgress(w io.Writer) *progress {
	return &progress{w: w, width: terminalWidth(w), layers: map[int]*layerState{}}
}

// state returns what is known of a layer.
//
// Preconditions: p.mu is held.
func (p *progress) state(index, count int) *layerState {
	l := p.layers[index]
	if l == nil {
		l = &layerState{Progress: layers.Progress{Index: index, Count: count}, since: time.Now()}
		p.layers[index] = l
	}
	p.count = count
	return l
}

// layer takes one report of a load; it is called from several goroutines.
func (p *progress) layer(r layers.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.state(r.Index, r.Count)
	before := l.Done
	l.Progress = r
	if p.width > 0 {
		if r.Done || time.Since(p.lastRun) >= redrawEvery {
			p.drawLocked()
		}
		return
	}
	if r.Done && !before {
		fmt.Fprintln(p.w, l.line(0))
	}
}

// fetched takes one report of a transfer; it is called from several goroutines.
func (p *progress) fetched(r registry.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.state(r.Index, r.Count)
	l.fetch = &r
	switch {
	case p.width > 0 && time.Since(p.lastRun) >= redrawEvery:
		p.drawLocked()
	case p.width == 0 && p.sending && r.Done == r.Total:
		fmt.Fprintln(p.w, l.line(0))
	}
}

// restart begins with another image below what has been drawn.
func (p *progress) restart() {
	p.close()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.layers, p.count, p.drawn = map[int]*layerState{}, 0, 0
}

// close draws the last state.
func (p *progress) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.width > 0 && len(p.layers) > 0 {
		p.drawLocked()
	}
}

// line describes a layer, with a bar when there is room for one.
func (l *layerState) line(width int) string {
	head := fmt.Sprintf("layer %d/%d", l.Index+1, l.Count)
	if l.Layer != "" {
		head += " " + short(string(l.Layer), false)
	}
	have, total, kept := l.Read, l.Total, int64(0)
	if f := l.fetch; f != nil {
		have, total, kept = max(have, f.Done), f.Total, f.Kept
	}
	switch {
	case l.fetch != nil && l.fetch.Note != "":
		return head + " " + size(total) + " " + l.fetch.Note
	case l.Known:
		return head + " already in the store"
	case l.Done && kept > 0:
		return head + fmt.Sprintf(" %s, %s of it fetched before", size(l.Read), size(kept))
	case l.Done:
		return head + " " + size(l.Read)
	case have == 0 && l.fetch == nil:
		return head + " waits"
	case total <= 0, l.fetch != nil && l.Layer == "" && have == total:
		return head + " " + size(have)
	}
	text := fmt.Sprintf(" %s of %s%s", size(have), size(total), pace(have-kept, total-have, time.Since(l.since)))
	if room := width - len(head) - len(text) - 4; room >= 10 {
		head += " " + progressBar(min(room, 30), have, total)
	}
	return head + text
}

// progressBar is a picture of have of total.
func progressBar(room int, have, total int64) string {
	full := int(min(have, total) * int64(room) / total)
	return "[" + strings.Repeat("=", full) + strings.Repeat(" ", room-full) + "]"
}

// pace is the rate so far and the time that the rest takes at that rate; empty until
// both mean something.
func pace(done, rest int64, d time.Duration) string {
	if done <= 0 || d < time.Second {
		return ""
	}
	rate := float64(done) / d.Seconds()
	text := ", " + size(int64(rate)) + "/s"
	if rest > 0 {
		left := time.Duration(float64(rest)/rate) * time.Second
		text += ", " + left.String() + " left"
	}
	return text
}

// maxLines is how many layers are drawn; the finished ones of a long stack have
// scrolled away.
const maxLines = 16

// drawLocked goes back to the first line and writes all of them again.
func (p *progress) drawLocked() {
	var b strings.Builder
	if p.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", p.drawn)
	}
	lines := 0
	for i := max(0, p.count-maxLines); i < p.count; i++ {
		l := p.layers[i]
		if l == nil {
			l = &layerState{Progress: layers.Progress{Index: i, Count: p.count}}
		}
		text := l.line(p.width)
		if len(text) >= p.width {
			text = text[:p.width-1]
		}
		fmt.Fprintf(&b, "\r\x1b[K%s\n", text)
		lines++
	}
	io.WriteString(p.w, b.String())
	p.drawn, p.lastRun = lines, time.Now()
}
