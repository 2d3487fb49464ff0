package wire

import (
	"fmt"
	"sync/atomic"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A process that uses a mount which it serves itself can hang for ever: a Go program registers every file that it opens
// with epoll, the kernel then asks the server with POLL while it holds a lock of that epoll, and the scheduler of the
// very process wants the lock before it lets a worker answer. The kernel stops asking on this connection after one
// ENOSYS. So one file is polled right after the mount, from a thread that does nothing else; go-fuse does the same.
//
// The file exists only at that moment: a name in the root that the Conn answers for itself.
const (
	probeName = ".layerfs-poll-probe"
	probeNode = 1<<63 | 'p' // no node of a handler
)

// prober answers for the file of the probe while it is on.
type prober struct{ on atomic.Bool }

// answers reports whether a request is about the probe.
func (p *prober) answers(h *fuse.InHeader, in []byte) bool {
	if !p.on.Load() {
		return false
	}
	if h.NodeId == probeNode {
		return true
	}
	if h.Opcode != OpLookup || h.NodeId != fuse.FUSE_ROOT_ID {
		return false
	}
	name, ok := name(in, inHeaderSize)
	return ok && string(name) == probeName
}

// answer is the answer to a request about the probe; forgets are ignored.
func (p *prober) answer(w *worker, h *fuse.InHeader) (int, syscall.Errno) {
	attr := fuse.Attr{Ino: probeNode, Mode: syscall.S_IFREG | 0o444, Nlink: 1}
	switch h.Opcode {
	case OpLookup:
		*w.entryOut() = fuse.EntryOut{NodeId: probeNode, Generation: 1, AttrValid: 60, Attr: attr}
		return entryOutSize, 0
	case OpGetattr:
		*w.attrOut() = fuse.AttrOut{AttrValid: 60, Attr: attr}
		return attrOutSize, 0
	case OpOpen:
		*w.openOut() = fuse.OpenOut{}
		return openOutSize, 0
	case OpForget, OpBatchForget:
		return noReply, 0
	case OpRelease:
		return 0, 0
	case OpGetxattr:
		return 0, syscall.ENODATA // an access list; after ENOSYS the kernel would ask for no attribute of any file
	}
	return 0, syscall.ENOSYS
}

// Probe makes the kernel stop sending POLL. It is called once after Start, before anybody else uses the mount at dir.
func (c *Conn) Probe(dir string) error {
	c.probe.on.Store(true)
	defer func() {
		c.probe.on.Store(false)
		_ = c.NotifyEntry(fuse.FUSE_ROOT_ID, probeName) // the name is not remembered anyway
	}()
	fd, err := unix.Open(dir+"/"+probeName, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("fuse: first access to the mount: %w", err)
	}
	defer unix.Close(fd)
	_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return err
}
