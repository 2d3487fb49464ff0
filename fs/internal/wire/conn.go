package wire

import (
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// errUnmounted ends a worker when the kernel is done with the connection.
var errUnmounted = errors.New("unmounted")

// ErrProtocol is returned when the kernel's first message is not one that this package understands.
var ErrProtocol = errors.New("fuse: the kernel did not begin with a message of protocol 7")

// Options say how a connection is served.
type Options struct {
	// Workers is the number of threads that answer requests; 0 means one per CPU, but at least four: a worker that waits for a
	// disk answers nobody else.
	Workers int
	// Passthrough asks the kernel for the ability to read files itself (see Conn.RegisterBacking).
	Passthrough bool
	// IDMapped allows the mount to be ID-mapped; it needs default_permissions.
	IDMapped bool
	// Writable serves what changes something, too: those requests, and all that belong to open files and directories, go
	// to the raw file system. Without it they are refused.
	Writable bool
	// Writeback lets the kernel keep what is written to files for a while. It excludes Passthrough.
	Writeback bool
	// Unchecked says that the kernel does not check permissions, also not those of access lists.
	Unchecked bool
	// Panicked is called after a request has panicked, or its content could not be read, and was answered with EIO.
	Panicked func(op string, node uint64, reason any)
}

// Conn is a connection to the kernel.
type Conn struct {
	fd      int
	file    *os.File
	handler Handler
	files   HandleReader // nil: files are read by their nodes
	rare    *fuse.ProtocolServer
	opts    Options
	workers []*worker

	init    []byte      // the INIT message as the kernel sent it
	ending  atomic.Bool // see Stop
	panics  atomic.Uint64
	probe   prober
	crew    crew // of a writable connection
	pace    pace // of a writable connection
	beside  beside
	started sync.Once
	done    chan struct{}
	err     error // why the workers ended; valid after done
}

// New returns a connection that answers the requests that come in over the device file: hot ones with h, rare ones
// with raw. The Conn owns device from here on. Nothing is read before Start.
func New(device *os.File, h Handler, raw fuse.RawFileSystem, o Options) *Conn {
	if o.Workers <= 0 {
		o.Workers = min(max(4, runtime.NumCPU()), 16)
		if o.Writable {
			o.Workers = max(o.Workers, 12) // fsync and copying keep some busy for long
		}
	}
	if o.Panicked == nil {
		o.Panicked = func(string, uint64, any) {}
	}
	c := &Conn{handler: h, opts: o, file: device, fd: -1, done: make(chan struct{})}
	c.files, _ = h.(HandleReader)
	if device != nil {
		// Fd leaves the descriptor in blocking mode, which is what the workers want.
		c.fd = int(device.Fd())
	}
	c.crew.init(1, o.Workers)
	c.rare = fuse.NewProtocolServer(raw, mountOptions(o))
	for range o.Workers {
		c.workers = append(c.workers, newWorker(c))
	}
	return c
}

// mountOptions are what go-fuse negotiates in INIT.
func mountOptions(o Options) *fuse.MountOptions {
	m := &fuse.MountOptions{
		MaxWrite:                 MaxRead, // go-fuse derives max_pages from it; tuneInit sets the size of writes
		MaxBackground:            64,
		EnableSymlinkCaching:     true,
		ExplicitDataCacheControl: true,
		DisableSplice:            true,
		IDMappedMount:            o.IDMapped,
		Options:                  []string{"default_permissions"},
		Logger:                   log.New(io.Discard, "", 0),
		// READDIRPLUS without _AUTO: the handler knows better which entries deserve attributes.
		ExtraCapabilities: fuse.CAP_NO_OPENDIR_SUPPORT | fuse.CAP_HAS_RESEND | fuse.CAP_HAS_EXPIRE_ONLY,
	}
	if !o.Passthrough {
		// Negotiated but unused it would still cost a level of file system stacking.
		m.DisabledCapabilities |= fuse.CAP_PASSTHROUGH
	} else {
		// OPEN is answered, so the kernel must not conclude that it need not ask.
		m.DisabledCapabilities |= fuse.CAP_NO_OPEN_SUPPORT
	}
	if o.Writable {
		tuneWritable(m, o)
	}
	return m
}

// tuneInit changes what go-fuse cannot be told. Without passthrough the stack depth stays zero: overlayfs may then be
// stacked on top twice.
func (c *Conn) tuneInit(out *fuse.InitOut) {
	out.MaxWrite = maxWrite
	if c.opts.Writable {
		out.MaxWrite = MaxRead
	}
	if !c.opts.Passthrough {
		out.MaxStackDepth = 0
	}
}

// Start answers the kernel's INIT message and begins to serve; it returns when the file system answers.
func (c *Conn) Start() error {
	err := errors.New("fuse: served already")
	c.started.Do(func() {
		if err = c.handshake(); err == nil {
			go c.serve()
		}
	})
	return err
}

func (c *Conn) handshake() error {
	w := c.workers[0]
	n, err := c.read(w.in)
	if err != nil {
		return fmt.Errorf("fuse: first message: %w", err)
	}
	head, err := c.negotiate(w.in[:n])
	if err != nil {
		return err
	}
	return w.write(head, nil)
}

// negotiate takes over the kernel's first message, which must lie in the buffer of the first worker, and returns the
// answer.
func (c *Conn) negotiate(in []byte) ([]byte, error) {
	if len(in) < inHeaderSize || (*fuse.InHeader)(unsafe.Pointer(&in[0])).Opcode != OpInit {
		return nil, ErrProtocol
	}
	c.init = append([]byte(nil), in...)
	w := c.workers[0]
	head, _ := w.answer(in)
	if head == nil || (*fuse.OutHeader)(unsafe.Pointer(&head[0])).Status != 0 {
		return nil, ErrProtocol
	}
	w.counts[OpInit].Add(1)
	return head, nil
}

// Resume begins to serve a connection that another process has served before: init is what the InitMessage of that one
// was. Requests that it has read and not answered come again. No other process may be reading from the descriptor.
func (c *Conn) Resume(init []byte) error {
	err := errors.New("fuse: served already")
	c.started.Do(func() {
		in := c.workers[0].in
		if len(init) > len(in) {
			err = ErrProtocol
			return
		}
		// The kernel has had its answer.
		if _, err = c.negotiate(in[:copy(in, init)]); err != nil {
			return
		}
		if err = c.NotifyResend(); err == nil {
			go c.serve()
		}
	})
	return err
}

// Stop lets the requests that are being answered come to their end, as far as they do within the time, and answers no
// others: for a process that is about to end, after which another one goes on with Resume. It must not be called by a
// handler.
func (c *Conn) Stop(wait time.Duration) {
	c.ending.Store(true)
	end := time.Now().Add(wait)
	for _, w := range c.workers {
		for w.busy.Load()&1 == 1 && time.Now().Before(end) {
			time.Sleep(100 * time.Microsecond)
		}
	}
}

// serve runs the workers to their end.
func (c *Conn) serve() {
	if c.opts.Writable {
		if err := syscall.SetNonblock(c.fd, true); err != nil {
			c.err = err
			close(c.done)
			return
		}
	}
	var wg sync.WaitGroup
	errs := make([]error, len(c.workers))
	for i, w := range c.workers {
		wg.Go(func() { errs[i] = w.run() })
	}
	wg.Wait()
	c.beside.wg.Wait()
	for _, err := range errs {
		if !errors.Is(err, errUnmounted) {
			c.err = err
		}
	}
	close(c.done)
}

// Done is closed when the connection has ended and no worker runs any more.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err says why the connection ended: nil after an unmount. It is valid once Done is closed.
func (c *Conn) Err() error { return c.err }

// Resendable reports whether the kernel can send requests again that a process has read and not answered.
func (c *Conn) Resendable() bool {
	if len(c.init) < int(unsafe.Sizeof(fuse.InitIn{})) {
		return false
	}
	in := (*fuse.InitIn)(unsafe.Pointer(&c.init[0]))
	return in.Flags64()&fuse.CAP_HAS_RESEND != 0
}

// Fd returns the descriptor of the connection; it belongs to the Conn. A process that takes over a mount needs it and
// InitMessage.
func (c *Conn) Fd() int { return c.fd }

// InitMessage returns the first message of the kernel as it came.
func (c *Conn) InitMessage() []byte { return c.init }

// Close closes the descriptor. Without another copy of it the kernel then fails every request with ENOTCONN.
// Preconditions: Done is closed, or Start was never called or failed.
func (c *Conn) Close() error { return c.file.Close() }

// read waits for one request.
func (c *Conn) read(buf []byte) (int, error) {
	for {
		n, err := syscall.Read(c.fd, buf)
		switch err {
		case nil:
			return n, nil
		case syscall.EINTR, syscall.EAGAIN, syscall.ENOENT:
			// ENOENT: the request was interrupted before anybody read it.
		default:
			return c.readError(err)
		}
	}
}

// readError says why reading has ended.
func (c *Conn) readError(err error) (int, error) {
	switch err {
	case syscall.ENODEV, syscall.ECONNABORTED, syscall.ENOTCONN:
		return 0, errUnmounted
	}
	return 0, fmt.Errorf("read /dev/fuse: %w", err)
}

// Quiesce returns when every request that was being answered when it was called has been answered. What no new request
// can reach is unused from then on. It must not be called from a handler.
func (c *Conn) Quiesce() {
	for _, w := range c.workers {
		passes(&w.busy)
	}
	passes(&c.beside.busy) // what a request has begun, so after those
}

// passes returns when what is being done now is done. A counter of work is odd while something is being done.
func passes(busy *atomic.Uint64) {
	was := busy.Load()
	for pause := time.Microsecond; was&1 == 1 && busy.Load() == was; pause = min(2*pause, 10*time.Millisecond) {
		time.Sleep(pause)
	}
}

// Counts returns how many requests were answered since the start, by operation.
func (c *Conn) Counts() map[string]uint64 {
	m := make(map[string]uint64)
	for op := range opCount {
		var n uint64
		for _, w := range c.workers {
			n += w.counts[op].Load()
		}
		if n == 0 {
			continue
		}
		m[opName(uint32(op))] += n
	}
	return m
}

func opName(op uint32) string {
	if op < opCount && opNames[op] != "" {
		return opNames[op]
	}
	return "other"
}

// panicked reports a panic of a request: the first hundred, so that a damaged file that is read in a loop does not
// fill a disk with log.
func (c *Conn) panicked(op uint32, node uint64, reason any) {
	if c.panics.Add(1) <= 100 {
		c.opts.Panicked(opName(op), node, reason)
	}
}
