package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/layerfs/layerfs/layers"
)

// A progress shows how an image is loaded: one line per layer that is drawn over
// on a terminal, elsewhere one plain line when a layer is done.
type progress struct {
	mu      sync.Mutex // guards all below
	w       io.Writer
	width   int // of the terminal, 0 when there is none
	layers  map[int]layers.Progress
	count   int
	drawn   int // lines on the terminal
	lastRun time.Time
}

// redrawEvery bounds the work that a terminal gets.
const redrawEvery = 100 * time.Millisecond

func newProgress(w io.Writer) *progress {
	return &progress{w: w, width: terminalWidth(w), layers: map[int]layers.Progress{}}
}

// layer takes one report; it is called from several goroutines.
func (p *progress) layer(r layers.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before, seen := p.layers[r.Index]
	p.layers[r.Index], p.count = r, r.Count
	if p.width > 0 {
		if r.Done || time.Since(p.lastRun) >= redrawEvery {
			p.drawLocked()
		}
		return
	}
	if r.Done && !(seen && before.Done) {
		fmt.Fprintln(p.w, p.line(r))
	}
}

// close draws the last state.
func (p *progress) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.width > 0 && len(p.layers) > 0 {
		p.drawLocked()
	}
}

func (p *progress) line(r layers.Progress) string {
	head := fmt.Sprintf("layer %d/%d %s ", r.Index+1, r.Count, short(string(r.Layer), false))
	switch {
	case r.Known:
		return head + "already in the store"
	case r.Done:
		return head + size(r.Read)
	case r.Total > 0:
		return head + fmt.Sprintf("%s of %s", size(r.Read), size(r.Total))
	}
	return head + size(r.Read)
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
		r, ok := p.layers[i]
		if !ok {
			r = layers.Progress{Index: i, Count: p.count}
		}
		text := p.line(r)
		if !ok {
			text = fmt.Sprintf("layer %d/%d waits", i+1, p.count)
		}
		if len(text) >= p.width {
			text = text[:p.width-1]
		}
		fmt.Fprintf(&b, "\r\x1b[K%s\n", text)
		lines++
	}
	io.WriteString(p.w, b.String())
	p.drawn, p.lastRun = lines, time.Now()
}
