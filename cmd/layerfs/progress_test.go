package main

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/layerfs/layerfs/layers"
	"github.com/layerfs/layerfs/layers/registry"
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

// A layer that comes over the network has a bar, and after a while the rate and the time
// that is left; what is there already, or was before, is said in words.
func TestProgressOfTransfers(t *testing.T) {
	begin := time.Now().Add(-10 * time.Second)
	fetch := func(done, kept int64, note string) *registry.Progress {
		return &registry.Progress{Index: 0, Count: 2, Done: done, Total: 100_000_000, Kept: kept, Note: note}
	}
	tests := []struct {
		state layerState
		want  string
	}{
		{layerState{fetch: fetch(50_000_000, 0, ""), since: begin}, "layer 1/2 [] 50MB of 100MB, 5MB/s, 10s left"},
		{layerState{fetch: fetch(60_000_000, 50_000_000, ""), since: begin}, "layer 1/2 [] 60MB of 100MB, 1MB/s, 40s left"},
		{layerState{fetch: fetch(10, 0, ""), since: time.Now()}, "layer 1/2 [] 10B of 100MB"},
		{layerState{fetch: fetch(100_000_000, 0, "already there")}, "layer 1/2 100MB already there"},
		{layerState{fetch: fetch(100_000_000, 0, "")}, "layer 1/2 100MB"},
		{layerState{Progress: layers.Progress{Read: 100_000_000, Done: true}, fetch: fetch(100_000_000, 30_000_000, "")}, "layer 1/2 100MB, 30MB of it fetched before"},
		{layerState{}, "layer 1/2 waits"},
	}
	for _, tt := range tests {
		tt.state.Index, tt.state.Count = 0, 2
		line := tt.state.line(67)
		if len(line) > 67 {
			t.Errorf("%q is too wide", line)
		}
		if got := regexp.MustCompile(`\[=* *\]`).ReplaceAllString(line, "[]"); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
	var out bytes.Buffer
	p := newProgress(&out)
	p.sending = true
	for _, done := range []int64{10, 50, 100} {
		p.fetched(registry.Progress{Index: 1, Count: 2, Done: done, Total: 100})
	}
	p.fetched(registry.Progress{Index: 0, Count: 2, Done: 100, Total: 100, Note: "shared with team/base"})
	p.close()
	if want := "layer 2/2 100B\nlayer 1/2 100B shared with team/base\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}
