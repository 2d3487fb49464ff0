package hold

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Kinds of messages.
const (
	opPut     = 'P' // server, or holder to a new one: an item
	opDrop    = 'D' // server: an item is not needed any more
	opEnd     = 'E' // holder: these were the items; with a state
	opServing = 'S' // server: it serves
	opFail    = 'F' // why it does not, or why there is no takeover
	opBye     = 'B' // server: it is done, nobody need go on
	opQuit    = 'Q' // holder: the server is to end without being done
	opTake    = 'T' // new holder: it wants the items; with a version
	opTaken   = 'A' // new holder: its server serves
)

// maxMessage is the size of the largest message.
const maxMessage = 64 << 10

// sendWait is how long the other side may leave a message unread: a process that was
// stopped must not stop the one that serves.
const sendWait = time.Second

// A message is what goes over a link.
type message struct {
	op   byte
	name string
	data []byte
	file *os.File // nil: none
}

// A link leads to the other process.
type link struct{ conn *net.UnixConn }

// newLink takes a socket over.
func newLink(f *os.File) (*link, error) {
	defer f.Close() // conn has another descriptor of it
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("socket of the holder: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("socket of the holder: it is of another kind"), c.Close())
	}
	return &link{u}, nil
}

// pair makes a link and the other end of it, for another process.
func pair() (*link, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "holder")
	l, err := newLink(os.NewFile(uintptr(fds[0]), "holder"))
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return l, theirs, nil
}

// send sends a message; fd is -1 for none.
func (l *link) send(op byte, name string, data []byte, fd int) error {
	if len(name) > 255 || len(name)+len(data)+2 > maxMessage {
		return fmt.Errorf("message to the holder: %w", unix.EMSGSIZE)
	}
	buf := append(append([]byte{op, byte(len(name))}, name...), data...)
	var rights []byte
	if fd >= 0 {
		rights = unix.UnixRights(fd)
	}
	if err := l.conn.SetWriteDeadline(time.Now().Add(sendWait)); err != nil {
		return err
	}
	_, _, err := l.conn.WriteMsgUnix(buf, rights, nil)
	return err
}

// receive waits for a message; io.EOF says that the other side is gone.
func (l *link) receive() (message, error) {
	buf, oob := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4))
	n, on, _, _, err := l.conn.ReadMsgUnix(buf, oob)
	if err != nil && !errors.Is(err, io.EOF) {
		return message{}, err
	}
	if n == 0 {
		return message{}, io.EOF
	}
	m := message{op: buf[0]}
	if on > 0 {
		m.file = fileOf(oob[:on])
	}
	if n < 2 || n < 2+int(buf[1]) {
		return m, errors.New("message of the holder: it is torn")
	}
	m.name = string(buf[2 : 2+buf[1]])
	m.data = append([]byte(nil), buf[2+int(buf[1]):n]...)
	return m, nil
}

// fileOf returns the descriptor that came with a message.
func fileOf(oob []byte) *os.File {
	list, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(list) == 0 {
		return nil
	}
	fds, err := unix.ParseUnixRights(&list[0])
	if err != nil || len(fds) == 0 {
		return nil
	}
	return os.NewFile(uintptr(fds[0]), "held")
}

func (l *link) close() { _ = l.conn.Close() }
