package wire

import (
	"bytes"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// worker answers one request at a time. Everything it needs for that it owns.
type worker struct {
	c   *Conn
	in  []byte
	out []byte
	dir Dir
	iov [2]syscall.Iovec
	sum byte // of what was touched; nobody wants it

	// busy is odd while a request is being answered; see Conn.Quiesce.
	busy atomic.Uint64
	// counts are the requests answered, by opcode; only this worker adds.
	counts [opCount]atomic.Uint64
	_      [64]byte // keeps the counters of two workers out of one cache line
}

func newWorker(c *Conn) *worker {
	// Slices of uint64 so that the structures in them are aligned.
	in := inSize
	if c.opts.Writable {
		in = inSizeWritable
	}
	return &worker{c: c, in: aligned(in), out: aligned(outHeaderSize + MaxRead)}
}

func aligned(n int) []byte {
	words := make([]uint64, (n+7)/8)
	return unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), n)
}

// Answer answers one message as a worker does, but without a kernel, and returns the bytes of the answer; nil where the
// kernel expects none. It is for tests; what in says must not be true of a kernel at the same time.
func (c *Conn) Answer(in []byte) []byte {
	if len(in) < inHeaderSize {
		return nil
	}
	w := c.workers[0]
	copied := aligned(len(in))
	copy(copied, in)
	head, tail := w.answer(copied)
	if head == nil {
		return nil
	}
	return append(append([]byte(nil), head...), tail...)
}

// run answers requests until the file system is unmounted or the connection is broken.
func (w *worker) run() error {
	runtime.LockOSThread()
	if w.c.opts.Writable {
		// Never unlocked: a thread with a umask of its own must not be used for anything else.
		if err := ownUmask(); err != nil {
			return err
		}
		defer w.c.crew.finish()
		if !w.c.crew.enter() {
			return errUnmounted
		}
	} else {
		defer runtime.UnlockOSThread()
	}
	debug.SetPanicOnFault(true)
	w.populate()
	read := func() (int, error) { return w.c.read(w.in) }
	if w.c.opts.Writable {
		read = w.next
	}
	for {
		n, err := read()
		if err != nil {
			return err
		}
		if n < inHeaderSize {
			continue
		}
		w.busy.Add(1)
		if w.c.ending.Load() {
			w.busy.Add(1)
			select {} // the process ends; the next one gets the request again
		}
		op := w.paced(w.in[:n])
		w.busy.Add(1)
		if op == OpDestroy || w.c.opts.Writable && !w.c.crew.stay() {
			return errUnmounted
		}
	}
}

// populate gives the buffer for requests its memory. Should the process be killed while the kernel copies a request to
// where it first has to find memory, the request would fail instead of being sent again.
func (w *worker) populate() {
	for i := 0; i < len(w.in); i += pageSize {
		w.in[i] = 0
	}
}

const pageSize = 4096

// present makes sure that a part of a mapping is in memory, for the same reason: a process that is killed while the
// kernel waits for the content of an answer has failed the request. What cannot be had panics, as any use of it does.
func present(b []byte) (sum byte) {
	for i := 0; i < len(b); i += pageSize {
		sum += b[i]
	}
	if len(b) > 0 {
		sum += b[len(b)-1]
	}
	return sum
}

// paced answers one request, and lets another worker take requests meanwhile when they are slow.
func (w *worker) paced(in []byte) uint32 {
	c := w.c
	if !c.opts.Writable {
		return w.one(in)
	}
	begin := sinceEpoch()
	if c.pace.slow(begin) || c.crew.lent.Load() > 0 {
		c.crew.begin()
		defer c.crew.end()
	}
	op := w.one(in)
	c.pace.took(begin, sinceEpoch())
	return op
}

// one answers one request and returns its opcode.
func (w *worker) one(in []byte) uint32 {
	h := (*fuse.InHeader)(unsafe.Pointer(&in[0]))
	op := h.Opcode
	w.counts[min(op, opCount-1)].Add(1)
	head, tail := w.answer(in)
	if head == nil {
		return op
	}
	// ENOENT means that nobody waits any more. After EFAULT, which means that tail lies in a damaged mapping, the
	// kernel has answered EIO itself: see fuse_dev_do_write.
	if err := w.write(head, tail); err == syscall.EFAULT {
		w.c.panicked(op, h.NodeId, "its content is mapped from a file that is shorter than it was")
	}
	return op
}

// write sends an answer of one or two parts.
func (w *worker) write(head, tail []byte) error {
	if len(tail) == 0 {
		// RawSyscall: copying a small buffer to the kernel does not block, so the scheduler need not know.
		_, _, e := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(w.c.fd), uintptr(unsafe.Pointer(&head[0])), uintptr(len(head)))
		return errnoErr(e)
	}
	w.iov[0] = syscall.Iovec{Base: &head[0], Len: uint64(len(head))}
	w.iov[1] = syscall.Iovec{Base: &tail[0], Len: uint64(len(tail))}
	// Syscall: the kernel reads tail, which may have to come from a disk first.
	_, _, e := syscall.Syscall(syscall.SYS_WRITEV, uintptr(w.c.fd), uintptr(unsafe.Pointer(&w.iov[0])), 2)
	runtime.KeepAlive(w)
	w.iov[1].Base = nil
	return errnoErr(e)
}

func errnoErr(e syscall.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

// answer decodes a request and returns the message to send, in one or two parts; none means that the kernel expects
// none. It never panics, whatever in holds. Preconditions: in holds at least a header and lies aligned.
func (w *worker) answer(in []byte) (head, tail []byte) {
	h := (*fuse.InHeader)(unsafe.Pointer(&in[0]))
	defer func() {
		if r := recover(); r != nil {
			w.c.panicked(h.Opcode, h.NodeId, r)
			head, tail = w.fail(h, syscall.EIO), nil
		}
	}()
	n, tail, errno := w.dispatch(h, in)
	w.sum += present(tail)
	switch {
	case errno != 0:
		return w.fail(h, errno), nil
	case n < 0:
		return nil, nil
	}
	out := (*fuse.OutHeader)(unsafe.Pointer(&w.out[0]))
	*out = fuse.OutHeader{Length: uint32(outHeaderSize + n + len(tail)), Unique: h.Unique}
	return w.out[:outHeaderSize+n], tail
}

// fail returns the message for an error, or nothing for a request that is never answered.
func (w *worker) fail(h *fuse.InHeader, errno syscall.Errno) []byte {
	switch h.Opcode {
	case OpForget, OpBatchForget, OpNotifyReply:
		return nil
	}
	out := (*fuse.OutHeader)(unsafe.Pointer(&w.out[0]))
	*out = fuse.OutHeader{Length: uint32(outHeaderSize), Status: -int32(errno), Unique: h.Unique}
	return w.out[:outHeaderSize]
}

// noReply is returned as length by requests that have no answer.
const noReply = -1

// dispatch puts the body of the answer behind the header in w.out and returns its length; tail is a body that lies
// elsewhere.
func (w *worker) dispatch(h *fuse.InHeader, in []byte) (n int, tail []byte, errno syscall.Errno) {
	if w.c.probe.answers(h, in) {
		n, errno = w.c.probe.answer(w, h)
		return n, nil, errno
	}
	switch h.Opcode {
	case OpLookup:
		n, errno = w.lookup(h, in)
	case OpGetattr:
		n, errno = w.getattr(h, in)
	case OpRead:
		return w.readData(h, in)
	case OpReaddir, OpReaddirplus:
		n, errno = w.readdir(h, in)
	case OpReadlink:
		tail, errno = w.c.handler.Readlink(h.NodeId)
		return w.small(tail, MaxRead, errno)
	case OpGetxattr:
		return w.getxattr(h, in)
	case OpListxattr:
		return w.listxattr(h, in)
	case OpForget:
		if len(in) >= forgetInSize {
			w.c.handler.Forget(h.NodeId, (*fuse.ForgetIn)(unsafe.Pointer(h)).Nlookup)
		}
		return noReply, nil, 0
	case OpBatchForget:
		w.batchForget(in)
		return noReply, nil, 0
	case OpNotifyReply:
		return noReply, nil, 0
	case OpDestroy:
		return 0, nil, 0
	default:
		return w.rare(h, in)
	}
	return n, nil, errno
}

// rare answers from the table or asks the raw file system.
func (w *worker) rare(h *fuse.InHeader, in []byte) (int, []byte, syscall.Errno) {
	if h.Opcode >= opCount {
		return 0, nil, syscall.ENOSYS
	}
	if w.c.opts.Writable {
		if !passed[h.Opcode] {
			return 0, nil, refusedWritable(h.Opcode)
		}
	} else if errno := refusals[h.Opcode]; errno != 0 {
		return 0, nil, errno
	} else if !passedReadOnly[h.Opcode] {
		return 0, nil, syscall.ENOSYS
	}
	// The iov slices and the request are allocated; these are rare.
	n, status := w.c.rare.HandleRequest([][]byte{in}, [][]byte{w.out})
	if status != fuse.OK || n < outHeaderSize {
		return 0, nil, syscall.EIO
	}
	if e := (*fuse.OutHeader)(unsafe.Pointer(&w.out[0])).Status; e != 0 {
		return 0, nil, syscall.Errno(-e)
	}
	if h.Opcode == OpInit && n >= outHeaderSize+initOutSize {
		w.c.tuneInit((*fuse.InitOut)(unsafe.Pointer(&w.out[outHeaderSize])))
	}
	return n - outHeaderSize, nil, 0
}

// The body of an answer, as what it is.
func (w *worker) entryOut() *fuse.EntryOut {
	return (*fuse.EntryOut)(unsafe.Pointer(&w.out[outHeaderSize]))
}

func (w *worker) attrOut() *fuse.AttrOut {
	return (*fuse.AttrOut)(unsafe.Pointer(&w.out[outHeaderSize]))
}

func (w *worker) openOut() *fuse.OpenOut {
	return (*fuse.OpenOut)(unsafe.Pointer(&w.out[outHeaderSize]))
}

// name returns the bytes up to the first zero from offset at on.
func name(in []byte, at int) ([]byte, bool) {
	if at > len(in) {
		return nil, false
	}
	in = in[at:]
	i := bytes.IndexByte(in, 0)
	if i <= 0 {
		return nil, false
	}
	return in[:i], true
}

func (w *worker) lookup(h *fuse.InHeader, in []byte) (int, syscall.Errno) {
	name, ok := name(in, inHeaderSize)
	if !ok {
		return 0, syscall.EINVAL
	}
	out := w.entryOut()
	*out = fuse.EntryOut{}
	return entryOutSize, w.c.handler.Lookup(h.NodeId, name, out)
}

func (w *worker) getattr(h *fuse.InHeader, in []byte) (int, syscall.Errno) {
	if len(in) < getattrInSize {
		return 0, syscall.EINVAL
	}
	out := w.attrOut()
	*out = fuse.AttrOut{}
	return attrOutSize, w.c.handler.GetAttr(h.NodeId, out)
}

func (w *worker) readData(h *fuse.InHeader, in []byte) (int, []byte, syscall.Errno) {
	if len(in) < readInSize {
		return 0, nil, syscall.EINVAL
	}
	r := (*fuse.ReadIn)(unsafe.Pointer(h))
	if r.Offset > 1<<63-1-MaxRead {
		return 0, nil, syscall.EINVAL
	}
	buf := w.out[outHeaderSize : outHeaderSize+int(min(r.Size, MaxRead))]
	var data []byte
	var errno syscall.Errno
	if w.c.files != nil {
		data, errno = w.c.files.ReadHandle(h.NodeId, r.Fh, buf, int64(r.Offset))
	} else {
		data, errno = w.c.handler.Read(h.NodeId, buf, int64(r.Offset))
	}
	switch {
	case errno != 0 || len(data) == 0:
		return 0, nil, errno
	case len(data) > len(buf):
		return 0, nil, syscall.EIO
	case &data[0] == &buf[0]:
		return len(data), nil, 0
	}
	return 0, data, 0
}

func (w *worker) readdir(h *fuse.InHeader, in []byte) (int, syscall.Errno) {
	if len(in) < readInSize {
		return 0, syscall.EINVAL
	}
	r := (*fuse.ReadIn)(unsafe.Pointer(h))
	buf := w.out[outHeaderSize : outHeaderSize+int(min(r.Size, MaxRead))]
	w.dir = Dir{Fh: r.Fh, Offset: r.Offset, Plus: h.Opcode == OpReaddirplus, buf: buf}
	errno := w.c.handler.ReadDir(h.NodeId, &w.dir)
	return w.dir.n, errno
}

// small returns a value of limited size as the body of an answer; the caller has said how much it takes.
func (w *worker) small(v []byte, limit int, errno syscall.Errno) (int, []byte, syscall.Errno) {
	switch {
	case errno != 0:
		return 0, nil, errno
	case len(v) > limit:
		return 0, nil, syscall.ERANGE
	}
	return copy(w.out[outHeaderSize:], v), nil, 0
}

func (w *worker) getxattr(h *fuse.InHeader, in []byte) (int, []byte, syscall.Errno) {
	if len(in) < xattrInSize {
		return 0, nil, syscall.EINVAL
	}
	name, ok := name(in, xattrInSize)
	if !ok {
		return 0, nil, syscall.EINVAL
	}
	v, errno := w.c.handler.GetXattr(h.NodeId, name)
	return w.xattr(in, v, errno)
}

func (w *worker) listxattr(h *fuse.InHeader, in []byte) (int, []byte, syscall.Errno) {
	if len(in) < xattrInSize {
		return 0, nil, syscall.EINVAL
	}
	// Listed behind the place of the size, so that both answers can be made from it.
	buf := w.out[outHeaderSize+8 : outHeaderSize+8 : len(w.out)]
	list, errno := w.c.handler.ListXattr(h.NodeId, buf)
	return w.xattr(in, list, errno)
}

// xattr answers a request for the value v, or for its size when the request has no room for one.
func (w *worker) xattr(in, v []byte, errno syscall.Errno) (int, []byte, syscall.Errno) {
	size := (*fuse.GetXAttrIn)(unsafe.Pointer(&in[0])).Size
	if size != 0 || errno != 0 {
		return w.small(v, int(min(size, MaxRead)), errno)
	}
	*(*fuse.GetXAttrOut)(unsafe.Pointer(&w.out[outHeaderSize])) = fuse.GetXAttrOut{Size: uint32(len(v))}
	return 8, nil, 0
}

func (w *worker) batchForget(in []byte) {
	const head, one = 8, 16
	if len(in) < inHeaderSize+head {
		return
	}
	count := *(*uint32)(unsafe.Pointer(&in[inHeaderSize]))
	in = in[inHeaderSize+head:]
	for ; count > 0 && len(in) >= one; count, in = count-1, in[one:] {
		e := (*[2]uint64)(unsafe.Pointer(&in[0]))
		w.c.handler.Forget(e[0], e[1])
	}
}
