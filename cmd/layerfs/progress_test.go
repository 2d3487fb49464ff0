package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/layerfs/layerfs/layers"
)

func report(index int, read int64, done, known bool) layers.Progress {
	return layers.Progress{
		Layer: layers.DiffID("sha256:" + strings.Repeat("a", 64)), Index: index, Count: 2,
		Read: read, Total: 2000, Done: done, Known: known,
	}
}

// Without a terminal there is one line per layer, when it is done.
func TestProgressPlain(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out)
	p.layer(report(0, 1000, false, false))
	p.layer(report(1, 0, true, true))
	p.layer(report(0, 2000, true, false))
	p.layer(report(0, 2000, true, false))
	p.close()
	want := "layer 2/2 aaaaaaaaaaaa already in the store\nlayer 1/2 aaaaaaaaaaaa 2kB\n"
	if got := out.String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// On a terminal all layers are drawn again over their own lines, which are never
// wider than the terminal.
func TestProgressTerminal(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out)
	p.width = 30
	p.layer(report(0, 1000, false, false))
	p.layer(report(0, 2000, true, false))
	p.close()
	got := out.String()
	if !strings.Contains(got, "layer 2/2 waits") || !strings.Contains(got, "\x1b[2A") {
		t.Errorf("got %q, want both layers, drawn over", got)
	}
	for line := range strings.Lines(got) {
		text := line[strings.LastIndexAny(line, "K")+1:]
		if len(strings.TrimSpace(text)) >= 30 {
			t.Errorf("line %q is too wide", text)
		}
	}
}
