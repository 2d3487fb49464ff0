package wire

import (
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// Programs that change files send one request after another, and to put a thread to sleep and to wake it takes longer
// than most requests, above all in a virtual machine. So the worker of a writable connection whose turn it is first looks
// for the next request again and again, for as long as that has been worth it lately; then it sleeps for a moment in a
// way that the Go scheduler knows nothing of, which otherwise wakes threads of its own each time; and then as usual. The
// descriptor does not block: what the worker sleeps in unknown to the scheduler is poll, which its signals interrupt.
const (
	watchMin = 10 * time.Microsecond
	watchMax = 100 * time.Microsecond
	nap      = time.Millisecond

	slow    = time.Millisecond
	slowFor = 50 * time.Millisecond
)

// A pace remembers how requests have come and gone lately. Races only make it less exact.
type pace struct {
	watch atomic.Int64 // for how long to look for the next request without sleeping
	until atomic.Int64 // until then requests are taken to be slow
}

// came says that a request came after so long, during which the worker looked for it for watch.
func (p *pace) came(after, watch time.Duration) {
	switch {
	case after <= watch:
	case after < watchMax:
		p.watch.Store(int64(min(max(2*watch, watchMin), watchMax)))
	case watch/2 < watchMin:
		p.watch.Store(0)
	default:
		p.watch.Store(int64(watch / 2))
	}
}

// slow reports whether requests take long at present, as on a busy disk. Then another worker takes requests while one is
// being answered.
func (p *pace) slow(now time.Duration) bool { return int64(now) < p.until.Load() }

// took says how long a request took.
func (p *pace) took(begin, end time.Duration) {
	if end-begin > slow {
		p.until.Store(int64(end + slowFor))
	}
}

var epoch = time.Now()

func sinceEpoch() time.Duration { return time.Since(epoch) }

// next waits for a request of a writable connection and reads it.
func (w *worker) next() (int, error) {
	p := &w.c.pace
	begin, watch := sinceEpoch(), time.Duration(p.watch.Load())
	napped := false
	for {
		n, errno := w.look()
		switch errno {
		case 0:
			p.came(sinceEpoch()-begin, watch)
			return n, nil
		case syscall.EAGAIN:
		case syscall.EINTR, syscall.ENOENT: // see Conn.read
			continue
		default:
			return w.c.readError(errno)
		}
		if watch > 0 && sinceEpoch()-begin < watch {
			continue
		}
		if !napped {
			napped = w.nap()
			continue
		}
		w.sleep()
	}
}

// look reads a request if there is one.
func (w *worker) look() (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(w.c.fd), uintptr(unsafe.Pointer(&w.in[0])), uintptr(len(w.in)))
	return int(n), errno
}

// pollFd is struct pollfd, see poll(2).
type pollFd struct {
	fd      int32
	events  int16
	revents int16
}

const pollIn = 1

// nap waits for a request for a moment and reports whether none came.
func (w *worker) nap() bool {
	p, t := pollFd{fd: int32(w.c.fd), events: pollIn}, syscall.NsecToTimespec(int64(nap))
	n, _, errno := syscall.RawSyscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&t)), 0, 0, 0)
	return n == 0 && errno == 0
}

// sleep waits for a request, or for a signal. What came is found out by looking.
func (w *worker) sleep() {
	p := pollFd{fd: int32(w.c.fd), events: pollIn}
	_, _, _ = syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, 0, 0, 0, 0)
}
