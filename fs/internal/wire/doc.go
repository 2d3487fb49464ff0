// Package wire speaks the FUSE protocol on a /dev/fuse descriptor: it reads requests, answers them and sends
// notifications. It knows nothing of images.
//
// Two ways lead from a request to its answer:
//
//	hot   LOOKUP GETATTR READ READDIR READDIRPLUS READLINK GETXATTR LISTXATTR FORGET BATCH_FORGET
//	      decoded here, answered by a [Handler] into buffers that each worker owns: nothing is allocated
//	rare  INIT STATFS OPEN RELEASE LSEEK ...: go-fuse's ProtocolServer over a fuse.RawFileSystem
//
// What a read-only file system refuses anyway (every operation that changes something, every operation whose absence
// the kernel remembers) is answered from a table without either.
//
// A round trip costs about 9 microseconds, of which this package may spend well below one. So there is no goroutine
// per request, no pool and no lock: a worker reads, answers and writes on its own thread. Interrupts are refused
// (the kernel then stops sending them), because an answer never waits for anything but a disk.
//
// No request ends the process: a panic in a handler, also one caused by a damaged memory mapping, becomes EIO.
package wire
