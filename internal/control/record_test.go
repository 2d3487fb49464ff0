package control

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func record(mountpoint string) Record {
	return Record{
		Mountpoint: mountpoint, PID: os.Getpid(), Store: "/store", Driver: "fuse",
		Since: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
}

func TestClaimAndFind(t *testing.T) {
	r := NewRegistry(t.TempDir())
	if _, err := r.Find("/mnt"); !errors.Is(err, ErrNotMounted) {
		t.Errorf("find in an empty registry: got %v, want ErrNotMounted", err)
	}
	c, err := r.Claim(record("/mnt"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.Find("/mnt")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(record("/mnt"), got); diff != "" {
		t.Error(diff)
	}
	if _, err := r.Claim(record("/mnt")); !errors.Is(err, ErrClaimed) {
		t.Errorf("second claim: got %v, want ErrClaimed", err)
	}
	if _, err := r.Claim(record("/a")); err != nil {
		t.Fatal(err)
	}
	all, err := r.Mounts()
	if err != nil || len(all) != 2 || all[0].Mountpoint != "/a" {
		t.Errorf("got %v, %v; want /a and /mnt", all, err)
	}
	if err := c.Release(); err != nil {
		t.Fatal(err)
	}
	if err := r.Wait(t.Context(), "/mnt"); err != nil {
		t.Error(err)
	}
}

func TestWaitEndsWithContext(t *testing.T) {
	r := NewRegistry(t.TempDir())
	c, err := r.Claim(record("/mnt"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Release()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if err := r.Wait(ctx, "/mnt"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the context's error", err)
	}
}

// A killed process leaves its file; the next one takes its place.
func TestDeadRecords(t *testing.T) {
	r := NewRegistry(t.TempDir())
	c, err := r.Claim(record("/mnt"))
	if err != nil {
		t.Fatal(err)
	}
	c.file.Close() // what the kernel does when a process is killed
	all, err := r.Mounts()
	if err != nil || len(all) != 0 {
		t.Errorf("got %v, %v; want nothing", all, err)
	}
	if _, err := os.Stat(c.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the dead record is still there: %v", err)
	}

	c, err = r.Claim(record("/mnt"))
	if err != nil {
		t.Fatal(err)
	}
	c.file.Close()
	if _, err := r.Claim(record("/mnt")); err != nil {
		t.Errorf("claim over a dead record: %v", err)
	}

	stale := filepath.Join(r.dir(), ".new-stale")
	if err := os.WriteFile(stale, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(stale, old, old); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Mounts(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(stale); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the stale temporary file is still there: %v", err)
	}
}

// Many at once, while readers look: exactly one owner at any time.
func TestClaimRace(t *testing.T) {
	r := NewRegistry(t.TempDir())
	var wg sync.WaitGroup
	var mu sync.Mutex
	owners, claims := 0, 0
	for range 8 {
		wg.Go(func() {
			for range 50 {
				_, _ = r.Mounts()
				c, err := r.Claim(record("/mnt"))
				if errors.Is(err, ErrClaimed) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				owners++
				claims++
				n := claims
				if owners != 1 {
					t.Errorf("%d owners at once", owners)
				}
				mu.Unlock()
				time.Sleep(time.Millisecond)
				mu.Lock()
				owners--
				mu.Unlock()
				if n%2 == 0 {
					c.Release()
				} else {
					c.file.Close()
				}
			}
		})
	}
	wg.Wait()
	if claims == 0 {
		t.Error("nobody got the claim")
	}
}

// TestMain lets the test binary play the spawned process.
func TestMain(m *testing.M) {
	switch os.Getenv("CONTROL_TEST_ROLE") {
	case "ready":
		reply := NewReply()
		if !reply.Spawned() || reply.Ready() != nil || reply.Spawned() {
			os.Exit(9)
		}
		time.Sleep(time.Minute)
	case "fail":
		NewReply().Fail(errors.New("no such thing"), 3)
		os.Exit(3)
	case "die":
		os.Stderr.WriteString("first\nlast words\n")
		os.Exit(1)
	case "hang":
		time.Sleep(time.Minute)
	default:
		os.Exit(m.Run())
	}
}

func TestSpawn(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log", "x.log")
	t.Setenv("CONTROL_TEST_ROLE", "ready")
	pid, err := Spawn(t.Context(), nil, log)
	if err != nil {
		t.Fatal(err)
	}
	p, _ := os.FindProcess(pid)
	if err := p.Kill(); err != nil {
		t.Errorf("the process does not run: %v", err)
	}
	p.Wait()

	t.Setenv("CONTROL_TEST_ROLE", "fail")
	_, err = Spawn(t.Context(), nil, log)
	if e := (*StartError)(nil); !errors.As(err, &e) || e.Code != 3 || e.Text != "no such thing" {
		t.Errorf("got %v, want the process's own error", err)
	}

	t.Setenv("CONTROL_TEST_ROLE", "die")
	_, err = Spawn(t.Context(), nil, log)
	if e := (*StartError)(nil); !errors.As(err, &e) || e.Code != 0 {
		t.Fatalf("got %v, want a StartError", err)
	}
	if got := err.Error(); !cmp.Equal(got[len(got)-10:], "last words") {
		t.Errorf("got %q, want the log's last line in it", got)
	}

	t.Setenv("CONTROL_TEST_ROLE", "hang")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Spawn(ctx, nil, log); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the context's error", err)
	}
}

func TestNotify(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", socket)
	if err := NewReply().Ready(); err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	buf := make([]byte, 64)
	n, err := conn.Read(buf)
	if err != nil || string(buf[:n]) != "READY=1" {
		t.Errorf("got %q, %v; want READY=1", buf[:n], err)
	}
	t.Setenv("NOTIFY_SOCKET", socket+"-absent")
	if err := NewReply().Ready(); err == nil {
		t.Error("a missing socket is not reported")
	}
}
