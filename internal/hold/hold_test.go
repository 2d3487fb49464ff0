package hold

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the program be a holder, and the server that such a one starts, which says in a file that it was.
func TestMain(m *testing.M) {
	switch {
	case IsHolder(os.Args):
		h := &Holder{Args: os.Args[2:], Log: slog.Default()}
		os.Exit(h.Run())
	case Inherits():
		if err := os.WriteFile(os.Args[1], nil, 0o600); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// await waits until something is so.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: it does not come to that", what)
		}
	}
}

// newClient returns a server with a holder; started is the file that a second server would make.
func newClient(t *testing.T) (c *Client, started string) {
	t.Helper()
	c, started = &Client{}, filepath.Join(t.TempDir(), "started")
	c.Start(&Options{Args: []string{started}, Quit: func() {}, Changed: func() {}, Log: slog.Default()})
	t.Cleanup(c.Bye)
	await(t, "a holder", func() bool { return c.Status().Holder != 0 })
	return c, started
}

// TestStoppedHolder stops a holder until its server does not wait for it any more: it must not take that for the death
// of the server when it goes on.
func TestStoppedHolder(t *testing.T) {
	c, started := newClient(t)
	first := c.Status().Holder
	if err := syscall.Kill(first, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	text := make([]byte, 1000)
	for i := 0; c.Status().Holder == first; i++ {
		c.Put(fmt.Sprint(i), text, -1)
	}
	// Those who are killed while they are stopped need not be continued. It may be gone altogether.
	if err := syscall.Kill(first, syscall.SIGCONT); err != nil && err != syscall.ESRCH {
		t.Fatal(err)
	}
	await(t, "another holder", func() bool { n := c.Status().Holder; return n != 0 && n != first })
	await(t, "the end of the first holder", func() bool { return syscall.Kill(first, 0) == syscall.ESRCH })
	if _, err := os.Stat(started); !os.IsNotExist(err) {
		t.Errorf("the first holder has started a server beside the one that lives: %v", err)
	}
	if s := c.Status(); s.Problem != "" {
		t.Errorf("problem: %s", s.Problem)
	}
}

// TestHolderKilled kills a holder: another one comes.
func TestHolderKilled(t *testing.T) {
	c, started := newClient(t)
	first := c.Status().Holder
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, "another holder", func() bool { n := c.Status().Holder; return n != 0 && n != first })
	if _, err := os.Stat(started); !os.IsNotExist(err) {
		t.Errorf("a server was started beside the one that lives: %v", err)
	}
}

// TestServerDies lets a server die: the holder starts another one.
func TestServerDies(t *testing.T) {
	started := filepath.Join(t.TempDir(), "started")
	l, theirs, err := pair()
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	cmd := command([]string{Verb, started}, holderVariable, theirs)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	l.close()
	await(t, "another server", func() bool { _, err := os.Stat(started); return err == nil })
	_ = cmd.Wait() // it gives up a server that dies again and again
}
