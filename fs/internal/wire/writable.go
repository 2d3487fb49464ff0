package wire

import (
	"fmt"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// inSizeWritable holds a WRITE of MaxRead bytes with its head.
const inSizeWritable = MaxRead + 64<<10

// passed are the requests of a writable connection that go to the raw file system.
var passed = [opCount]bool{
	OpInit: true, OpStatfs: true, OpOpen: true, OpRelease: true, OpLseek: true,
	OpSetattr: true, OpSymlink: true, OpMknod: true, OpMkdir: true, OpUnlink: true, OpRmdir: true, OpRename: true,
	OpRename2: true, OpLink: true, OpWrite: true, OpSetxattr: true, OpRemovexattr: true, OpCreate: true, OpTmpfile: true,
	OpFallocate: true, OpOpendir: true, OpReleasedir: true, OpFsync: true, OpFsyncdir: true, OpCopyRange: true,
}

// refusedWritable is the answer to all others.
func refusedWritable(op uint32) syscall.Errno {
	if op == OpIoctl {
		return syscall.ENOTTY
	}
	// The kernel does without: of FLUSH, because what was written is written, or in its own cache, which it flushes itself.
	return syscall.ENOSYS
}

// tuneWritable changes what is negotiated for a writable connection.
func tuneWritable(m *fuse.MountOptions, o Options) {
	// Without KILLPRIV_V2 the kernel asks for security.capability before every write. With DONT_MASK the umask comes along:
	// it does not count where a directory hands an access list down.
	m.ExtraCapabilities |= fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_ATOMIC_O_TRUNC | fuse.CAP_READDIRPLUS_AUTO |
		fuse.CAP_DONT_MASK | fuse.CAP_SETXATTR_EXT
	m.EnableAcl = !o.Unchecked // it makes the kernel check
	m.ExtraCapabilities &^= fuse.CAP_NO_OPENDIR_SUPPORT
	m.DisabledCapabilities |= fuse.CAP_NO_OPENDIR_SUPPORT | fuse.CAP_NO_OPEN_SUPPORT
	if o.Passthrough {
		m.MaxStackDepth = 1
	}
	if o.Writeback {
		m.ExtraCapabilities |= fuse.CAP_WRITEBACK_CACHE
	}
}

// ownUmask gives the calling thread a umask that masks nothing: modes come from the kernel as they are to be.
func ownUmask() error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("umask of a worker: %w", err)
	}
	unix.Umask(0)
	return nil
}
