package wire

import (
	"runtime"
	"syscall"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Notifications go to the kernel unasked. Those that name a directory entry wait for the lock of the directory, which
// the kernel holds while a look-up in it is being answered: they must never be sent by a handler.

// notification is the head of every message of this kind.
type notification struct {
	fuse.OutHeader
	body [3]uint64
}

// NotifyEntry makes the kernel forget what it knows of the entry name of a directory: that it exists, what it is, or
// that there is none. It is no error when the kernel knows nothing.
func (c *Conn) NotifyEntry(parent uint64, name string) error {
	m := notification{}
	e := (*fuse.NotifyInvalEntryOut)(unsafe.Pointer(&m.body[0]))
	*e = fuse.NotifyInvalEntryOut{Parent: parent, NameLen: uint32(len(name))}
	text := append([]byte(name), 0)
	return c.notify(&m, fuse.NOTIFY_INVAL_ENTRY, int(unsafe.Sizeof(*e)), text)
}

// NotifyInode makes the kernel forget the attributes of a node and everything that it has read of it: the content of a
// file or the entries of a directory.
func (c *Conn) NotifyInode(node uint64) error {
	m := notification{}
	e := (*fuse.NotifyInvalInodeOut)(unsafe.Pointer(&m.body[0]))
	*e = fuse.NotifyInvalInodeOut{Ino: node}
	return c.notify(&m, fuse.NOTIFY_INVAL_INODE, int(unsafe.Sizeof(*e)), nil)
}

// NotifyPrune makes the kernel forget nodes that nobody uses, which it would otherwise keep until it needs memory. It is
// no error when it knows nothing of them. Kernels before protocol 7.45 (Linux 6.18) return EINVAL.
func (c *Conn) NotifyPrune(nodes []uint64) error {
	if len(nodes) == 0 {
		return nil
	}
	m := notification{}
	e := (*fuse.NotifyPruneOut)(unsafe.Pointer(&m.body[0]))
	*e = fuse.NotifyPruneOut{Count: uint32(len(nodes))}
	return c.notify(&m, fuse.NOTIFY_PRUNE, int(unsafe.Sizeof(*e)), unsafe.Slice((*byte)(unsafe.Pointer(&nodes[0])), 8*len(nodes)))
}

// Store gives the kernel the beginning of the content of a file that it has not asked for. It reports whether the
// kernel knows the node. The kernel waits until nobody else reads that part of the file, so a handler must not call it.
func (c *Conn) Store(node uint64, data []byte) (known bool, err error) {
	m := notification{}
	e := (*fuse.NotifyStoreOut)(unsafe.Pointer(&m.body[0]))
	*e = fuse.NotifyStoreOut{Nodeid: node, Size: uint32(len(data))}
	errno := c.send(&m, fuse.NOTIFY_STORE_CACHE, int(unsafe.Sizeof(*e)), data)
	if errno == syscall.ENOENT {
		return false, nil
	}
	return errno == 0, errnoErr(errno)
}

// NotifyResend asks the kernel to send again what it has sent and got no answer to, after a process took over.
func (c *Conn) NotifyResend() error {
	return c.notify(&notification{}, fuse.NOTIFY_RESEND, 0, nil)
}

func (c *Conn) notify(m *notification, code int32, size int, text []byte) error {
	switch e := c.send(m, code, size, text); e {
	case 0, syscall.ENOENT, syscall.ENOTDIR, syscall.ENOTCONN, syscall.ENODEV:
		return nil // unknown to the kernel, or nobody is left to tell
	default:
		return e
	}
}

func (c *Conn) send(m *notification, code int32, size int, text []byte) syscall.Errno {
	m.OutHeader = fuse.OutHeader{Length: uint32(outHeaderSize + size + len(text)), Status: -code}
	iov := []syscall.Iovec{{Base: (*byte)(unsafe.Pointer(m)), Len: uint64(outHeaderSize + size)}}
	if len(text) > 0 {
		iov = append(iov, syscall.Iovec{Base: &text[0], Len: uint64(len(text))})
	}
	_, _, e := syscall.Syscall(syscall.SYS_WRITEV, uintptr(c.fd), uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)))
	runtime.KeepAlive(m)
	runtime.KeepAlive(text)
	return e
}

// ioctl numbers of /dev/fuse.
const (
	iocBackingOpen  = 0x4010e501
	iocBackingClose = 0x4004e502
)

// RegisterBacking gives a file to the kernel for passthrough and returns its number; the descriptor may be closed
// afterwards. It needs CAP_SYS_ADMIN outside every user namespace.
func (c *Conn) RegisterBacking(fd int) (int32, error) {
	m := struct {
		fd, flags int32
		padding   uint64
	}{fd: int32(fd)}
	id, _, e := syscall.Syscall(syscall.SYS_IOCTL, uintptr(c.fd), iocBackingOpen, uintptr(unsafe.Pointer(&m)))
	return int32(id), errnoErr(e)
}

// UnregisterBacking takes the file back; open files that use it go on.
func (c *Conn) UnregisterBacking(id int32) error {
	_, _, e := syscall.Syscall(syscall.SYS_IOCTL, uintptr(c.fd), iocBackingClose, uintptr(unsafe.Pointer(&id)))
	return errnoErr(e)
}
