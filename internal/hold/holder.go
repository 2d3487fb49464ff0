package hold

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Verb is the first argument of a holder; the command line of its server follows.
const Verb = "hold"

// version is that of the items: what one program has put another one understands that
// has the same.
const version = "1"

// Names of items that the holder itself looks at.
const (
	// ItemListen is a listening socket for those who want to take over.
	ItemListen = "listen"
	// ItemArgs is the command line of the server, as JSON.
	ItemArgs = "args"
)

// A Failure is why a server does not serve.
type Failure struct {
	Text string
	Code int // what it exits with
}

func (f *Failure) Error() string { return f.Text }

const (
	// quickly is how soon after its start a server must die to be taken for one that
	// cannot serve; maxQuick in a row are given up.
	quickly  = 100 * time.Millisecond
	maxQuick = 10
	// quitWait is how long a server may finish what it is doing before another takes
	// over.
	quitWait = 600 * time.Millisecond
	// takeWait is how long the new server may take to serve.
	takeWait = 10 * time.Second
)

// A Holder keeps items and sees to it that there is a server.
type Holder struct {
	// Args is the command line of the server.
	Args []string
	// Log gets what happens.
	Log *slog.Logger
	// GiveUp is called with the items when there will be no server any more.
	GiveUp func(items map[string]Held)
	// Ready, if set, is called once a server serves that this holder has started.
	Ready func()

	items      map[string]Held
	events     chan event
	server     *link
	pid        int       // of the server
	child      *exec.Cmd // nil: another process has started it
	served     bool      // the present server has said that it serves
	started    time.Time // the present server
	failure    *Failure  // of the present server
	quick      int       // servers in a row that died at once
	takeovers  int
	resumed    bool // there was a server before the present one
	listener   *net.UnixListener
	ending     bool  // a signal has said so
	old        *link // the holder that this one replaces, until it is gone
	taker      *link // the holder that replaces this one
	given      bool  // it has the items
	foreground bool
}

// An event is something that the holder has to react to.
type event struct {
	from   *link
	m      message
	err    error
	taker  *link     // somebody has connected
	signal os.Signal // or there was a signal
	kill   int       // or a server that was asked to quit had time enough
	again  bool      // or it is time for the next server
	late   *link     // or a taker had time enough
}

// IsHolder reports whether this process is to be a holder.
func IsHolder(args []string) bool { return len(args) > 1 && args[1] == Verb }

// Run is the life of a holder in the background: of one that a server has started, or
// that takes over from another holder. It returns the exit code.
func (h *Holder) Run() int {
	h.init()
	// These are for the server, which must not inherit that they are ignored.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	f := inherited(takeVariable)
	if f == nil {
		if err := h.follow(); err != nil {
			h.Log.Error("hold", "error", err)
			return 1
		}
		return h.loop()
	}
	answer := answerer()
	h.Ready = func() { answer(nil) }
	if err := h.take(f); err != nil {
		answer(&Failure{err.Error(), 1})
		return h.end(1)
	}
	code := h.loop()
	if h.failure != nil {
		answer(h.failure)
	}
	return code
}

// Supervise is the life of a holder in the foreground: it starts the server and passes
// signals on to it. With taken it takes over from another holder first. It returns why
// the server did not serve, if that is so, and the exit code.
func (h *Holder) Supervise(taken *os.File) (int, error) {
	h.init()
	h.foreground = true
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		for s := range signals {
			h.events <- event{signal: s}
		}
	}()
	var err error
	if taken != nil {
		err = h.take(taken)
	} else {
		err = h.start()
	}
	if err != nil {
		return 1, err
	}
	code := h.loop()
	if h.failure != nil {
		return h.failure.Code, h.failure
	}
	return code, nil
}

func (h *Holder) init() {
	h.items, h.events = map[string]Held{}, make(chan event, 64)
}

// follow begins with a server that is running and has started this process.
func (h *Holder) follow() error {
	f := inherited(holderVariable)
	if f == nil {
		return errors.New("this verb is for layerfs itself")
	}
	l, err := newLink(f)
	if err != nil {
		return err
	}
	h.resumed = true
	h.serve(l)
	return nil
}

// take asks another holder for its items, and starts a server with them.
func (h *Holder) take(f *os.File) error {
	l, err := newLink(f)
	if err != nil {
		return err
	}
	if err := l.send(opTake, "", []byte(version), -1); err != nil {
		return fmt.Errorf("takeover: %w", err)
	}
	_ = l.conn.SetReadDeadline(time.Now().Add(takeWait)) // a socket that is open has one
	for {
		m, err := l.receive()
		if err != nil {
			return fmt.Errorf("takeover: the present holder does not answer: %w", err)
		}
		switch m.op {
		case opPut:
			h.put(m)
			continue
		case opFail:
			return fmt.Errorf("takeover: %s", m.data)
		case opEnd:
		default:
			continue
		}
		var s state
		if err := json.Unmarshal(m.data, &s); err != nil {
			return fmt.Errorf("takeover: %w", err)
		}
		if err := json.Unmarshal(h.items[ItemArgs].Data, &h.Args); err != nil {
			return fmt.Errorf("takeover: %w", err)
		}
		h.takeovers, h.old, h.resumed = s.Takeovers, l, true
		_ = l.conn.SetReadDeadline(time.Time{})
		go h.read(l)
		return h.start()
	}
}

// oldSaid reacts to the holder that this one replaces. True says that it goes on itself:
// then the server of this one must not.
func (h *Holder) oldSaid(e event) bool {
	if e.err == nil && e.m.op == opFail {
		_ = syscall.Kill(h.pid, syscall.SIGKILL)
		h.failure = &Failure{"takeover: " + string(e.m.data), 1}
		return true
	}
	if e.err != nil {
		h.old.close()
		h.old = nil
	}
	return false
}

// put takes an item.
func (h *Holder) put(m message) {
	h.drop(m.name)
	h.items[m.name] = Held{m.data, m.file}
	if m.name == ItemListen && m.file != nil && h.listener == nil {
		h.listen(m.file)
	}
}

func (h *Holder) drop(name string) {
	if old := h.items[name]; old.File != nil {
		old.File.Close() // nobody wants it any more
	}
	delete(h.items, name)
}

// serve hears what a server says from now on.
func (h *Holder) serve(l *link) {
	h.server, h.started, h.served, h.failure = l, time.Now(), false, nil
	go h.read(l)
}

// read passes on what comes over a link.
func (h *Holder) read(l *link) {
	for {
		m, err := l.receive()
		h.events <- event{from: l, m: m, err: err}
		if err != nil {
			return
		}
	}
}

// listen lets those in who want to take over.
func (h *Holder) listen(f *os.File) {
	n, err := net.FileListener(f)
	if err != nil {
		h.Log.Warn("nobody can take the mount over", "error", err)
		return
	}
	u, ok := n.(*net.UnixListener)
	if !ok {
		return
	}
	u.SetUnlinkOnClose(false) // the name is the server's
	h.listener = u
	go func() {
		for {
			c, err := u.AcceptUnix()
			if err != nil {
				return
			}
			if !mayTake(c) {
				c.Close()
				continue
			}
			h.events <- event{taker: &link{c}}
		}
	}()
}

// mayTake reports whether the other side of a connection is the same user, or root.
func mayTake(c *net.UnixConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	var cred *unix.Ucred
	err = raw.Control(func(fd uintptr) {
		cred, _ = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return err == nil && cred != nil && (cred.Uid == 0 || int(cred.Uid) == os.Geteuid())
}

// start starts a server and gives it the items.
func (h *Holder) start() error {
	l, theirs, err := pair()
	if err != nil {
		return err
	}
	cmd := command(h.Args, serverVariable, theirs)
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		l.close()
		return fmt.Errorf("start the serving process: %w", err)
	}
	h.child, h.pid = cmd, cmd.Process.Pid
	h.serve(l)
	for name, item := range h.items {
		fd := -1
		if item.File != nil {
			fd = int(item.File.Fd())
		}
		if err := l.send(opPut, name, item.Data, fd); err != nil {
			return nil // it has died, which the reader notices
		}
	}
	text, err := json.Marshal(state{os.Getpid(), h.takeovers, h.resumed})
	if err == nil {
		_ = l.send(opEnd, "", text, -1) // likewise
	}
	return err
}

// loop reacts to what happens until everything is over, and returns the exit code.
func (h *Holder) loop() int {
	for e := range h.events {
		switch {
		case e.signal != nil:
			h.signalled()
		case e.taker != nil:
			h.wanted(e.taker)
		case e.kill != 0:
			if e.kill == h.pid && h.server != nil && h.taker != nil {
				_ = syscall.Kill(h.pid, syscall.SIGKILL) // what it is doing is done again
			}
		case e.late != nil:
			if e.late == h.taker {
				_ = e.late.send(opFail, "", []byte("the new server takes too long to answer; the mount goes on as before"), -1)
				e.late.close()
			}
		case e.again:
			if h.ending {
				return h.giveUp()
			}
			if err := h.start(); err != nil {
				h.Log.Error("hold", "error", err)
				return h.giveUp()
			}
		case e.from == h.old && h.old != nil:
			if h.oldSaid(e) {
				return h.end(1)
			}
		case e.from == h.server:
			if code, over := h.heard(e); over {
				return h.end(code)
			}
		case e.from == h.taker:
			if h.takerSaid(e) {
				return h.end(0)
			}
		case e.m.file != nil:
			e.m.file.Close() // from a link that does not matter any more
		}
	}
	return 0
}

// heard reacts to a message of the server, or its death; over ends the holder.
func (h *Holder) heard(e event) (code int, over bool) {
	if e.err != nil {
		return h.died()
	}
	switch e.m.op {
	case opPut:
		h.put(e.m)
	case opDrop:
		h.drop(e.m.name)
	case opEnd:
		var s state
		if json.Unmarshal(e.m.data, &s) == nil {
			h.takeovers = s.Takeovers
		}
	case opServing:
		h.nowServed(e.m)
	case opFail:
		f := &Failure{Code: 1}
		if json.Unmarshal(e.m.data, f) == nil {
			h.failure = f
		}
	case opBye:
		if h.taker != nil {
			_ = h.taker.send(opFail, "", []byte("it was unmounted just now"), -1)
		}
		return h.exitCode(), true
	}
	return 0, false
}

// exitCode waits for the end of a server that is a child in the foreground, whose
// exit code counts.
func (h *Holder) exitCode() int {
	if !h.foreground || h.child == nil {
		return 0
	}
	_ = h.child.Wait()
	return max(h.child.ProcessState.ExitCode(), 0)
}

// nowServed is called when the server serves.
func (h *Holder) nowServed(m message) {
	h.served = true
	if n, err := strconv.Atoi(string(m.data)); err == nil {
		h.pid = n
	}
	if h.child == nil {
		return
	}
	if h.old != nil {
		_ = h.old.send(opTaken, "", nil, -1) // it may be gone: nobody misses it
	}
	if h.Ready != nil {
		h.Ready()
		h.Ready = nil
	}
}

// died is called when the server is gone without having said that it is done.
func (h *Holder) died() (code int, over bool) {
	h.server.close()
	h.server = nil
	if h.child != nil {
		_ = h.child.Wait()
	}
	switch {
	case h.ending:
		return h.giveUp(), true
	case h.child != nil && !h.served && (!h.resumed || h.old != nil):
		// The first one, or that of a takeover: whoever has asked for it is told, and the
		// other holder goes on.
		if h.failure == nil {
			h.failure = &Failure{"the serving process died before it answered", 1}
		}
		return h.failure.Code, true
	case h.taker != nil && !h.given:
		h.give()
		return 0, false
	}
	if time.Since(h.started) < quickly || !h.served {
		h.quick++
	} else {
		h.quick = 0
	}
	if h.quick > maxQuick {
		return h.giveUp(), true
	}
	h.next(time.Duration(max(h.quick-3, 0)) * 50 * time.Millisecond)
	h.Log.Warn("the serving process died; another one goes on", "takeovers", h.takeovers)
	return 0, false
}

// next has another server go on, after a delay.
func (h *Holder) next(delay time.Duration) {
	h.takeovers++
	h.resumed = true
	time.AfterFunc(delay, func() { h.events <- event{again: true} })
}

// wanted is called when another holder wants the items.
func (h *Holder) wanted(l *link) {
	_ = l.conn.SetReadDeadline(time.Now().Add(sendWait)) // a socket that is open has one
	m, err := l.receive()
	_ = l.conn.SetReadDeadline(time.Time{})
	reason := ""
	switch {
	case err != nil:
	case m.op != opTake || string(m.data) != version:
		reason = "this mount is served by a layerfs whose state the other one does not understand; unmount it and mount again"
	case h.taker != nil || h.old != nil && !h.served:
		reason = "another takeover is under way; try again"
	case h.server == nil:
		reason = "its serving process is being started; try again"
	}
	if err != nil || reason != "" {
		_ = l.send(opFail, "", []byte(reason), -1)
		l.close()
		return
	}
	h.taker, h.given = l, false
	go h.read(l)
	_ = h.server.send(opQuit, "", nil, -1)
	pid := h.pid
	time.AfterFunc(quitWait, func() { h.events <- event{kill: pid} })
	time.AfterFunc(takeWait, func() { h.events <- event{late: l} })
}

// give gives the items to the holder that takes over.
func (h *Holder) give() {
	h.given = true
	for name, item := range h.items {
		fd := -1
		if item.File != nil {
			fd = int(item.File.Fd())
		}
		if err := h.taker.send(opPut, name, item.Data, fd); err != nil {
			return // the reader notices
		}
	}
	text, err := json.Marshal(state{Takeovers: h.takeovers + 1})
	if err == nil {
		_ = h.taker.send(opEnd, "", text, -1)
	}
}

// takerSaid reacts to the holder that takes over; true says that it has.
func (h *Holder) takerSaid(e event) bool {
	if e.err == nil && e.m.op == opTaken {
		return true
	}
	if e.err == nil {
		return false
	}
	h.Log.Warn("a takeover did not come to an end; the mount goes on as before")
	h.taker.close()
	h.taker = nil
	if h.given && h.server == nil {
		h.next(0)
	}
	return false
}

// signalled passes a signal on to the server. The second one ends it at once.
func (h *Holder) signalled() {
	how := syscall.SIGTERM
	if h.ending {
		how = syscall.SIGKILL
	}
	h.ending = true
	if h.server != nil && h.pid > 0 {
		_ = syscall.Kill(h.pid, how)
	}
}

// giveUp ends what nobody serves any more.
func (h *Holder) giveUp() int {
	if !h.ending {
		h.Log.Error("the serving process dies again and again; it is not started any more", "takeovers", h.takeovers)
	}
	if h.GiveUp != nil {
		h.GiveUp(h.items)
	}
	return 1
}

// end closes what this process has. Whoever takes over has it, too.
func (h *Holder) end(code int) int {
	if h.listener != nil {
		h.listener.Close()
	}
	for _, l := range []*link{h.server, h.old, h.taker} {
		if l != nil {
			l.close()
		}
	}
	for name := range h.items {
		h.drop(name)
	}
	return code
}
