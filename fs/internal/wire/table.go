package wire

import "syscall"

// refusals are the answers that need no look at the request. EROFS for what would change something: the mount is
// read-only, so the kernel sends these only when somebody remounted it writable. ENOSYS where the kernel takes it for
// a standing answer: it stops asking, which is the point (OPEN is answered by the raw file system, because it depends
// on passthrough). Opcodes in neither list nor among the hot ones go to the raw file system.
var refusals = [opCount]syscall.Errno{
	OpSetattr:     syscall.EROFS,
	OpSymlink:     syscall.EROFS,
	OpMknod:       syscall.EROFS,
	OpMkdir:       syscall.EROFS,
	OpUnlink:      syscall.EROFS,
	OpRmdir:       syscall.EROFS,
	OpRename:      syscall.EROFS,
	OpRename2:     syscall.EROFS,
	OpLink:        syscall.EROFS,
	OpWrite:       syscall.EROFS,
	OpSetxattr:    syscall.EROFS,
	OpRemovexattr: syscall.EROFS,
	OpCreate:      syscall.EROFS,
	OpTmpfile:     syscall.EROFS,
	OpFallocate:   syscall.EROFS,

	OpOpendir:    syscall.ENOSYS,
	OpReleasedir: syscall.ENOSYS,
	OpFlush:      syscall.ENOSYS,
	OpAccess:     syscall.ENOSYS,
	OpFsync:      syscall.ENOSYS,
	OpFsyncdir:   syscall.ENOSYS,
	OpIoctl:      syscall.ENOTTY,
	OpPoll:       syscall.ENOSYS,
	OpInterrupt:  syscall.ENOSYS, // "do not send these": see fuse_dev_do_write, FUSE_INT_REQ_BIT

	31: syscall.ENOSYS, // GETLK, SETLK, SETLKW: locks stay in the kernel
	32: syscall.ENOSYS,
	33: syscall.ENOSYS,
	37: syscall.ENOSYS, // BMAP
	47: syscall.ENOSYS, // COPY_FILE_RANGE
	48: syscall.ENOSYS, // SETUPMAPPING
	49: syscall.ENOSYS, // REMOVEMAPPING
	50: syscall.ENOSYS, // SYNCFS
	52: syscall.ENOSYS, // STATX: the kernel falls back to GETATTR
	53: syscall.ENOSYS, // COPY_FILE_RANGE_64
}

// passedReadOnly are the requests that go to the raw file system when nothing can be changed.
var passedReadOnly = [opCount]bool{OpInit: true, OpStatfs: true, OpOpen: true, OpRelease: true, OpLseek: true}

// opNames are the names used in counters.
var opNames = [opCount]string{
	OpLookup: "lookup", OpForget: "forget", OpGetattr: "getattr", OpSetattr: "setattr", OpReadlink: "readlink",
	OpSymlink: "symlink", OpMknod: "mknod", OpMkdir: "mkdir", OpUnlink: "unlink", OpRmdir: "rmdir", OpRename: "rename",
	OpLink: "link", OpOpen: "open", OpRead: "read", OpWrite: "write", OpStatfs: "statfs", OpRelease: "release",
	OpFsync: "fsync", OpSetxattr: "setxattr", OpGetxattr: "getxattr", OpListxattr: "listxattr",
	OpRemovexattr: "removexattr", OpFlush: "flush", OpInit: "init", OpOpendir: "opendir", OpReaddir: "readdir",
	OpReleasedir: "releasedir", OpFsyncdir: "fsyncdir", OpAccess: "access", OpCreate: "create",
	OpInterrupt: "interrupt", OpDestroy: "destroy", OpIoctl: "ioctl", OpPoll: "poll", OpNotifyReply: "notify_reply",
	OpBatchForget: "batch_forget", OpFallocate: "fallocate", OpReaddirplus: "readdirplus", OpRename2: "rename2",
	OpLseek: "lseek", OpCopyRange: "copy_file_range", OpTmpfile: "tmpfile",
}
