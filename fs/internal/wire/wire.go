package wire

import (
	"syscall"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Opcodes of the FUSE protocol that this package names, see include/uapi/linux/fuse.h.
const (
	OpLookup      = 1
	OpForget      = 2
	OpGetattr     = 3
	OpSetattr     = 4
	OpReadlink    = 5
	OpSymlink     = 6
	OpMknod       = 8
	OpMkdir       = 9
	OpUnlink      = 10
	OpRmdir       = 11
	OpRename      = 12
	OpLink        = 13
	OpOpen        = 14
	OpRead        = 15
	OpWrite       = 16
	OpStatfs      = 17
	OpRelease     = 18
	OpFsync       = 20
	OpSetxattr    = 21
	OpGetxattr    = 22
	OpListxattr   = 23
	OpRemovexattr = 24
	OpFlush       = 25
	OpInit        = 26
	OpOpendir     = 27
	OpReaddir     = 28
	OpReleasedir  = 29
	OpFsyncdir    = 30
	OpAccess      = 34
	OpCreate      = 35
	OpInterrupt   = 36
	OpDestroy     = 38
	OpIoctl       = 39
	OpPoll        = 40
	OpNotifyReply = 41
	OpBatchForget = 42
	OpFallocate   = 43
	OpReaddirplus = 44
	OpRename2     = 45
	OpLseek       = 46
	OpCopyRange   = 47
	OpTmpfile     = 51

	opCount = 64 // room for opcodes that the kernel may learn; larger ones are counted together in the last place
)

// Sizes of the fixed structures at the head of messages.
const (
	inHeaderSize  = int(unsafe.Sizeof(fuse.InHeader{}))
	outHeaderSize = int(unsafe.Sizeof(fuse.OutHeader{}))
	entryOutSize  = int(unsafe.Sizeof(fuse.EntryOut{}))
	attrOutSize   = int(unsafe.Sizeof(fuse.AttrOut{}))
	openOutSize   = int(unsafe.Sizeof(fuse.OpenOut{}))
	readInSize    = int(unsafe.Sizeof(fuse.ReadIn{}))
	getattrInSize = int(unsafe.Sizeof(fuse.GetAttrIn{}))
	xattrInSize   = int(unsafe.Sizeof(fuse.GetXAttrIn{}))
	forgetInSize  = int(unsafe.Sizeof(fuse.ForgetIn{}))
	initOutSize   = int(unsafe.Sizeof(fuse.InitOut{}))
)

// MaxRead is the largest READ or READDIR that is answered: 256 pages, what the kernel allows without a changed limit.
const MaxRead = 1 << 20

// maxWrite is what the kernel may send in one WRITE. Nothing is ever written here; a small value keeps the buffers for
// requests small, because the kernel demands that they hold the largest WRITE.
const maxWrite = 4096

// inSize holds every request: the largest are BATCH_FORGET and SETXATTR, which the kernel cuts to the buffer, or
// refuses (E2BIG) when it is too small.
const inSize = 64 << 10

// Handler answers the hot requests. Its methods are called by several workers at once and must not keep the slices
// they are given. An errno of zero means success. Whatever was counted as a look-up by the kernel (a successful Lookup
// with a node other than zero, and an entry of ReadDir with one) is taken back by Forget.
type Handler interface {
	// Lookup fills out for the entry name of the directory parent. To make the kernel remember that there is none, it
	// leaves out.NodeId zero, sets out.EntryValid and returns 0.
	Lookup(parent uint64, name []byte, out *fuse.EntryOut) syscall.Errno

	// GetAttr fills out for node.
	GetAttr(node uint64, out *fuse.AttrOut) syscall.Errno

	// Read returns up to len(buf) bytes of node from off on: fewer only at the end of the file, since the kernel takes
	// a short answer for a new file size. The result is the beginning of buf or memory that stays readable until the
	// request is over. Should it not be readable after all (a mapping of a damaged file), the kernel answers EIO.
	Read(node uint64, buf []byte, off int64) ([]byte, syscall.Errno)

	// ReadDir appends entries to out, beginning with the one after out.Offset.
	ReadDir(node uint64, out *Dir) syscall.Errno

	// Readlink returns the target of a symbolic link; the slice stays readable until the request is over.
	Readlink(node uint64) ([]byte, syscall.Errno)

	// GetXattr returns the value of an extended attribute, under the same conditions.
	GetXattr(node uint64, name []byte) ([]byte, syscall.Errno)

	// ListXattr appends the names of the extended attributes of node to buf, each followed by a zero byte.
	ListXattr(node uint64, buf []byte) ([]byte, syscall.Errno)

	// Forget takes n look-ups of node back.
	Forget(node, n uint64)
}

// HandleReader is what a Handler is, too, that reads from open files and not only from nodes: fh is what OPEN was
// answered with.
type HandleReader interface {
	ReadHandle(node, fh uint64, buf []byte, off int64) ([]byte, syscall.Errno)
}

// Dir collects the entries of a READDIR or READDIRPLUS answer.
type Dir struct {
	// Offset is where the kernel wants to go on: 0, or the offset of the last entry it has seen.
	Offset uint64
	// Fh is what OPENDIR was answered with.
	Fh uint64
	// Plus is set for READDIRPLUS: entries are added with AddPlus, otherwise with Add.
	Plus bool

	buf []byte
	n   int
}

// NewDir returns a Dir that fills buf, for tests and for callers that have no request.
func NewDir(buf []byte, offset uint64, plus bool) *Dir {
	return &Dir{Offset: offset, Plus: plus, buf: buf}
}

// Bytes returns what was added so far in the form that the kernel reads.
func (d *Dir) Bytes() []byte { return d.buf[:d.n] }

const direntSize = 24

// Add appends an entry and reports whether there was room. The type is that of the mode of the file, kind the S_IFMT
// bits; offset is what the kernel sends to go on after this entry.
func (d *Dir) Add(name []byte, ino uint64, mode uint32, offset uint64) bool {
	return d.add(0, name, ino, mode, offset)
}

// AddPlus appends an entry together with the answer to its look-up, which the caller fills through the returned
// pointer before adding anything else; it is zeroed. Left with NodeId zero the kernel takes only the name (as it does
// for "." and ".."). It returns nil when there is no room.
func (d *Dir) AddPlus(name []byte, ino uint64, mode uint32, offset uint64) *fuse.EntryOut {
	at := d.n
	if !d.add(entryOutSize, name, ino, mode, offset) {
		return nil
	}
	out := (*fuse.EntryOut)(unsafe.Pointer(&d.buf[at]))
	*out = fuse.EntryOut{}
	return out
}

func (d *Dir) add(prefix int, name []byte, ino uint64, mode uint32, offset uint64) bool {
	size := prefix + (direntSize+len(name)+7)&^7
	if size > len(d.buf)-d.n {
		return false
	}
	e := d.buf[d.n+prefix : d.n+size]
	head := (*[3]uint64)(unsafe.Pointer(&e[0]))
	head[0], head[1] = ino, offset
	*(*[2]uint32)(unsafe.Pointer(&head[2])) = [2]uint32{uint32(len(name)), mode & syscall.S_IFMT >> 12}
	clear(e[direntSize+copy(e[direntSize:], name):])
	d.n += size
	return true
}
