// Package hold keeps a service alive over the death of the process that serves.
//
// # Words
//
// The server does the work; whoever kills it kills only that. The holder is a second,
// tiny process that keeps what the next server needs: items, each a name, some bytes
// and a descriptor. A descriptor stays open, and a lock on it held, for as long as one
// of the two lives.
//
// # Who starts whom
//
// A server in the background starts the holder once it serves (see [Client.Start]), so
// nobody waits for that. In the foreground the holder comes first and starts the
// server (see [Supervise]). When the server dies without having said that it is done,
// the holder starts another one, with the same command line and from the same
// program, and gives it the items. When the holder dies the server starts another
// holder. When both die everything is gone.
//
// A takeover replaces both: a holder from another program asks the present one for
// the items over a socket (see [Take]). That lets its server end first, and starts it
// again if the new one does not get to serve.
//
// # Messages
//
// They go over sockets that keep them apart (SOCK_SEQPACKET): a letter, the length of
// the name, the name, the bytes; the descriptor comes with them.
package hold
