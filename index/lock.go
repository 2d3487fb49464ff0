package index

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	lockPollMin = 50 * time.Microsecond
	lockPollMax = time.Millisecond
)

// The bytes of index.lock that carry open-file-description locks, see doc.go.
const (
	byteQueue  = 0 // shared by readers that wait, exclusive by the writer that is next
	byteWriter = 1 // exclusive by the one writer
)

// A waiter takes the locks of one transaction.
type waiter struct {
	ctx      context.Context
	f        *os.File
	timeout  time.Duration
	deadline time.Time
	writer   bool // byteWriter is ours
}

// openLock opens the lock file for a transaction. On a store that cannot be
// written there may be none; then f is nil and there is nobody to exclude.
func (db *DB) openLock(ctx context.Context, exclusive bool) (*waiter, error) {
	if db.readOnly && exclusive {
		return nil, fmt.Errorf("index: %s was opened to be read only: %w", db.path, os.ErrPermission)
	}
	flags := os.O_RDWR | os.O_CREATE
	if db.readOnly {
		flags = os.O_RDONLY
	}
	f, err := os.OpenFile(db.path+".lock", flags, 0o600)
	if err != nil && !exclusive && (db.readOnly || errors.Is(err, unix.EROFS) || errors.Is(err, os.ErrPermission)) {
		if f, err = os.Open(db.path + ".lock"); err != nil {
			return &waiter{}, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("lock of the index: %w", err)
	}
	return &waiter{ctx: ctx, f: f, timeout: db.timeout, deadline: time.Now().Add(db.timeout)}, nil
}

// lockShared lets a reader in. It waits behind a writer that came before, and no
// writer that comes later gets in before it.
func (db *DB) lockShared(ctx context.Context) (release func(), err error) {
	w, err := db.openLock(ctx, false)
	if err != nil {
		return nil, err
	}
	if w.f == nil {
		return func() {}, nil
	}
	err = w.ofd(byteQueue, unix.F_RDLCK)
	if err == nil {
		err = w.flock(unix.LOCK_SH)
	}
	if err == nil {
		err = w.ofd(byteQueue, unix.F_UNLCK)
	}
	if err != nil {
		w.f.Close()
		return nil, err
	}
	return func() { w.f.Close() }, nil
}

// lockWriter keeps other writers out, but no readers, and writes down who holds it
// and for what.
func (db *DB) lockWriter(ctx context.Context, purpose string) (*waiter, error) {
	w, err := db.openLock(ctx, true)
	if err != nil {
		return nil, err
	}
	if err := w.ofd(byteWriter, unix.F_WRLCK); err != nil {
		w.f.Close()
		return nil, err
	}
	w.writer = true
	// The text is only read by those who wait; that it may be stale or torn after a
	// kill does no harm.
	if w.f.Truncate(0) == nil {
		fmt.Fprintf(w.f, "%d %s", os.Getpid(), purpose)
	}
	return w, nil
}

// excludeReaders waits until those who read have finished; readers that come later
// wait for the writer.
func (w *waiter) excludeReaders() error {
	if err := w.ofd(byteQueue, unix.F_WRLCK); err != nil {
		return err
	}
	if err := w.flock(unix.LOCK_EX); err != nil {
		return err
	}
	return w.ofd(byteQueue, unix.F_UNLCK)
}

// lockExclusive keeps everybody else out.
func (db *DB) lockExclusive(ctx context.Context, purpose string) (release func(), err error) {
	w, err := db.lockWriter(ctx, purpose)
	if err != nil {
		return nil, err
	}
	if err := w.excludeReaders(); err != nil {
		w.f.Close()
		return nil, err
	}
	return func() { w.f.Close() }, nil
}

// ofd sets or, with F_UNLCK, gives back the lock on one byte of the file. These
// locks belong to the open file, as those of flock(2) do: threads of one process
// exclude each other, and the kernel frees them when their holder dies.
func (w *waiter) ofd(b int64, how int16) error {
	return w.await(func() error {
		l := unix.Flock_t{Type: how, Start: b, Len: 1}
		return unix.FcntlFlock(w.f.Fd(), unix.F_OFD_SETLK, &l)
	})
}

func (w *waiter) flock(how int) error {
	return w.await(func() error { return unix.Flock(int(w.f.Fd()), how|unix.LOCK_NB) })
}

// await polls for a lock: neither kind can be given a deadline, and a poll every
// millisecond is far below what anybody notices.
func (w *waiter) await(try func() error) error {
	for wait := lockPollMin; ; wait = min(2*wait, lockPollMax) {
		err := try()
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("lock of the index: %w", err)
		}
		if time.Now().After(w.deadline) {
			return fmt.Errorf("%w: %s has held the index for more than %v; wait for it, or stop it",
				ErrBusy, w.holder(), w.timeout)
		}
		select {
		case <-w.ctx.Done():
			return w.ctx.Err()
		case <-time.After(wait):
		}
	}
}

// holder names who holds the lock: those that the kernel lists, with the purpose
// that a writer has written down about itself.
func (w *waiter) holder() string {
	pids := lockers(w.f)
	buf := make([]byte, 256)
	n, err := w.f.ReadAt(buf, 0)
	pid, purpose, ok := strings.Cut(string(buf[:n]), " ")
	if err != nil && !errors.Is(err, io.EOF) || w.writer { // then the text is our own
		ok = false
	}
	if len(pids) == 0 && ok {
		return fmt.Sprintf("process %s (%s)", pid, purpose)
	}
	var who []string
	for _, p := range pids {
		what := "reading"
		if ok && p == pid {
			what = purpose
		}
		who = append(who, fmt.Sprintf("process %s (%s)", p, what))
	}
	if len(who) == 0 {
		return "another process"
	}
	return strings.Join(who, ", ")
}

// lockers lists the processes that hold a flock(2) on the file, from /proc/locks.
func lockers(f *os.File) []string {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return nil
	}
	raw, err := os.ReadFile("/proc/locks")
	if err != nil {
		return nil
	}
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	var pids []string
	for _, line := range strings.Split(string(raw), "\n") {
		// 1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF
		field := strings.Fields(line)
		if len(field) < 6 || field[1] != "FLOCK" || field[5] != file {
			continue
		}
		pids = append(pids, field[4])
	}
	return pids
}
