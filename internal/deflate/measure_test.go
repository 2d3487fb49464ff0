package deflate

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestMeasure prints how small the corrections of the gzip files are that match the
// pattern in LAYERFS_DEFLATE_BLOBS, and how fast it goes.
func TestMeasure(t *testing.T) {
	pattern := os.Getenv("LAYERFS_DEFLATE_BLOBS")
	if pattern == "" {
		t.Skip("LAYERFS_DEFLATE_BLOBS is not set")
	}
	names, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("%-34s %9s %9s %8s %8s %8s %7s %7s  %s\n", "blob", "bytes", "plain", "corr", "% blob", "% missed", "ana MB/s", "rec MB/s", "predictor")
	for _, name := range names {
		blob, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		plain := gunzip(t, blob)
		var correction, again bytes.Buffer
		begin := cpu(t)
		s, err := Analyze(bytes.NewReader(blob), &correction)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		analyzed := cpu(t) - begin
		begin = cpu(t)
		if err := Reconstruct(bytes.NewReader(plain), &correction, &again); err != nil {
			t.Fatalf("%s: %v (%+v)", name, err, s)
		}
		rebuilt := cpu(t) - begin
		if !bytes.Equal(again.Bytes(), blob) {
			t.Fatalf("%s: not the same again", name)
		}
		mb := float64(len(plain)) / 1e6
		fmt.Printf("%-34s %9d %9d %8d %8.4f %8.4f %8.1f %8.1f  %s\n", filepath.Base(name), len(blob), len(plain), s.CorrectionSize,
			100*float64(s.CorrectionSize)/float64(len(blob)), 100*float64(s.Mispredicted)/float64(max(s.Tokens, 1)),
			mb/analyzed.Seconds(), mb/rebuilt.Seconds(), s.Predictor)
	}
}

// cpu is the time that the process has used: the machine may be busy with others.
func cpu(t *testing.T) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
