package hold

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Listen makes the socket at path, by which others take over. Its name may be longer
// than the kernel allows for such sockets.
func Listen(path string) (*os.File, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	short, done, err := shorten(path)
	if err != nil {
		return nil, err
	}
	defer done()
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: short, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	// The umask has made its mode. Who may connect is asked of the kernel besides (mayTake).
	if err := os.Chmod(short, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	f, err := l.File()
	return f, errors.Join(err, l.Close())
}

// shorten returns another path to the same place, which is valid until done is called.
func shorten(path string) (short string, done func(), err error) {
	fd, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, &os.PathError{Op: "open", Path: filepath.Dir(path), Err: err}
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", fd, filepath.Base(path)), func() { unix.Close(fd) }, nil
}

// Connect returns a connection to the holder that listens at path, for Supervise and
// SpawnTaker.
func Connect(path string) (*os.File, error) {
	short, done, err := shorten(path)
	if err != nil {
		return nil, err
	}
	defer done()
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: short, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("its holder does not answer (%w); unmount it and mount again", err)
	}
	defer c.Close() // the file is another descriptor
	return c.File()
}

// SpawnTaker starts a holder of this program that takes over from the one that conn
// leads to, and returns when its server serves. Messages go to log.
func SpawnTaker(conn, log *os.File) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := command([]string{Verb}, takeVariable, conn, w)
	cmd.Env = append(cmd.Env, readyVariable+"=4")
	cmd.Stdout, cmd.Stderr = log, log
	err = cmd.Start()
	w.Close()
	if err != nil {
		return fmt.Errorf("start the holder: %w", err)
	}
	_ = r.SetReadDeadline(time.Now().Add(2 * takeWait)) // a pipe has one
	answer := make([]byte, 4096)
	n, err := r.Read(answer)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errors.New("the new holder does not answer; `layerfs mounts` shows who serves now")
	case n == 0:
		return fmt.Errorf("the new holder died before it answered; its messages are in %s", log.Name())
	}
	if answer[0] != opServing {
		return errors.New(string(answer[1:n]))
	}
	return cmd.Process.Release()
}

// readyVariable is the number of the descriptor that a holder answers on which
// SpawnTaker has started.
const readyVariable = "LAYERFS_TAKEN_FD"

// answerer returns what tells the process that has started this one how it went; it
// does nothing where nobody waits.
func answerer() func(f *Failure) {
	pipe := inherited(readyVariable)
	return func(f *Failure) {
		if pipe == nil {
			return
		}
		text := []byte{opServing}
		if f != nil {
			text = append([]byte{opFail}, f.Text...)
		}
		_, _ = pipe.Write(text) // who does not wait any more is not told
		pipe.Close()
		pipe = nil
	}
}
