package layers

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// watchSettle gathers the transactions of one command into one call.
	watchSettle = 20 * time.Millisecond
	// watchPoll is the period of looking where the kernel does not tell, such as on
	// a network file system.
	watchPoll = 500 * time.Millisecond
)

// Watch calls fn once when it has begun to watch, and then whenever the index has
// been written, by whatever process, until ctx ends. A call may stand for several changes, or for one that is not visible
// in a Catalogue. Additional stores are looked at twice a second: they may lie where
// the kernel does not tell, and may come and go; fn is then called from another
// goroutine.
func (s *Store) Watch(ctx context.Context, fn func()) error {
	if len(s.additional) > 0 {
		var lowers sync.WaitGroup
		defer lowers.Wait()
		lowers.Go(func() { s.pollLowers(ctx, fn) })
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return s.pollIndex(ctx, fn)
	}
	// A writer opens index.db for each transaction and closes it after the commit.
	if _, err := unix.InotifyAddWatch(fd, s.root, unix.IN_CLOSE_WRITE|unix.IN_MOVED_TO); err != nil {
		unix.Close(fd)
		return s.pollIndex(ctx, fn)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	stop := context.AfterFunc(ctx, func() { f.Close() })
	defer stop()
	defer f.Close()
	fn()
	buf := make([]byte, 16<<10)
	for {
		n, err := f.Read(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("watch of %s: %w", s.root, err)
		}
		if mentionsIndex(buf[:n]) {
			time.Sleep(watchSettle)
			fn()
		}
	}
}

// mentionsIndex reports whether one of the inotify events is about index.db, or
// events were lost.
func mentionsIndex(buf []byte) bool {
	const head = unix.SizeofInotifyEvent
	for len(buf) >= head {
		ev := (*unix.InotifyEvent)(unsafe.Pointer(&buf[0]))
		end := min(head+int(ev.Len), len(buf))
		name := buf[head:end]
		for len(name) > 0 && name[len(name)-1] == 0 {
			name = name[:len(name)-1]
		}
		if string(name) == "index.db" || ev.Mask&unix.IN_Q_OVERFLOW != 0 {
			return true
		}
		buf = buf[end:]
	}
	return false
}

func (s *Store) pollIndex(ctx context.Context, fn func()) error {
	path := filepath.Join(s.root, "index.db")
	var last time.Time
	if info, err := os.Stat(path); err == nil {
		last = info.ModTime()
	}
	fn()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(watchPoll):
		}
		if info, err := os.Stat(path); err == nil && !info.ModTime().Equal(last) {
			last = info.ModTime()
			fn()
		}
	}
}

// pollLowers calls fn when an additional store has been written, has come or gone.
func (s *Store) pollLowers(ctx context.Context, fn func()) {
	last := s.lowerMarks()
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(watchPoll):
		}
		if now := s.lowerMarks(); now != last {
			last = now
			fn()
		}
	}
}

// lowerMarks describes the files that change when an additional store does.
func (s *Store) lowerMarks() string {
	var b strings.Builder
	for _, a := range s.additional {
		for _, name := range watched {
			if st, err := os.Stat(filepath.Join(a.root, name)); err == nil {
				fmt.Fprint(&b, st.ModTime().UnixNano(), " ", st.Size(), " ", st.Sys().(*syscall.Stat_t).Ino)
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// watched are the files of an additional store that tell of a change.
var watched = []string{"format", "index.db", "overlay-images/images.json", "overlay-layers/layers.json"}
