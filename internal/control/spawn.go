package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
)

// readyVariable holds the number of the descriptor that a spawned process
// answers on.
const readyVariable = "LAYERFS_READY_FD"

// An answer is what a spawned process says once: that it serves, or why not.
type answer struct {
	Error string `json:"error,omitempty"`
	Code  int    `json:"code,omitempty"`
}

// A StartError is why a spawned process does not serve.
type StartError struct {
	// Text is the error of that process.
	Text string
	// Code is the exit code that it chose; 0 when it died without an answer.
	Code int
}

func (e *StartError) Error() string { return e.Text }

// Spawn runs the calling program again with args, in a session of its own, with
// its messages appended to the file logPath, and returns when that process has
// answered (see Reply). When ctx ends first the process is terminated.
func Spawn(ctx context.Context, args []string, logPath string) (pid int, err error) {
	log, err := OpenLog(logPath)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	start, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{w} // becomes descriptor 3
	cmd.Env = append(os.Environ(), readyVariable+"=3")
	cmd.Dir = "/" // the caller's directory stays free to be unmounted
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return 0, fmt.Errorf("start the serving process: %w", err)
	}
	pid = cmd.Process.Pid
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	defer stop()
	raw, err := io.ReadAll(io.LimitReader(r, 1<<20))
	if err != nil {
		return 0, err
	}
	return pid, understand(ctx, cmd, raw, logPath, start)
}

// understand turns what the process said into an error, nil when it serves.
func understand(ctx context.Context, cmd *exec.Cmd, raw []byte, logPath string, start int64) error {
	var a answer
	if err := json.Unmarshal(raw, &a); err == nil {
		if a.Error == "" {
			return cmd.Process.Release()
		}
		_ = cmd.Wait() // its exit code says less than its answer
		return &StartError{Text: a.Error, Code: a.Code}
	}
	err := cmd.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil {
		err = errors.New("it ended")
	}
	text := fmt.Sprintf("the serving process died before it answered: %v; see %s", err, logPath)
	if tail := logTail(logPath, start); tail != "" {
		text += ": " + tail
	}
	return &StartError{Text: text}
}

// OpenLog opens the file for the messages of a serving process, to append to it.
func OpenLog(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("log of the serving process: %w", err)
	}
	flags := os.O_WRONLY | os.O_CREATE | os.O_APPEND
	if info, err := os.Stat(path); err == nil && info.Size() > 1<<20 {
		flags |= os.O_TRUNC // old mounts' messages; keep the runroot small
	}
	f, err := os.OpenFile(path, flags|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("log of the serving process: %w", err)
	}
	return f, nil
}

// logTail returns the last line that was written to the log after start.
func logTail(path string, start int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	raw, err := io.ReadAll(io.NewSectionReader(f, start, 64<<10))
	if err != nil {
		return ""
	}
	lines := bytes.Split(bytes.TrimSpace(raw), []byte("\n"))
	return string(lines[len(lines)-1])
}

// A Reply is the way back to the process that spawned this one, and to systemd.
type Reply struct {
	pipe *os.File // nil when nobody spawned this process
}

// NewReply takes the pipe over that Spawn has left; to be called before the
// process starts children, which must not inherit it. In a process that nobody
// spawned the reply goes to systemd only, if that asked for one.
func NewReply() *Reply {
	fd, err := strconv.Atoi(os.Getenv(readyVariable))
	os.Unsetenv(readyVariable)
	if err != nil || fd < 3 {
		return &Reply{}
	}
	syscall.CloseOnExec(fd)
	return &Reply{pipe: os.NewFile(uintptr(fd), "ready")}
}

// Spawned reports whether another process waits for the answer.
func (r *Reply) Spawned() bool { return r.pipe != nil }

// Ready says that the mount answers.
func (r *Reply) Ready() error {
	return errors.Join(r.send(answer{}), notify("READY=1"))
}

// Fail says that there will be no mount, and why; code becomes the exit code of
// the command that waits. After Ready it does nothing.
func (r *Reply) Fail(failure error, code int) error {
	return r.send(answer{Error: failure.Error(), Code: code})
}

// send sends the first answer and drops all others.
func (r *Reply) send(a answer) error {
	if r.pipe == nil {
		return nil
	}
	err := json.NewEncoder(r.pipe).Encode(a)
	err = errors.Join(err, r.pipe.Close())
	r.pipe = nil
	return err
}

// notify sends one state to the service manager, as sd_notify(3) does.
func notify(state string) error {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	return nil
}
