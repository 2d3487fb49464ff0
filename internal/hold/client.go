package hold

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Variables with the numbers of inherited descriptors.
const (
	serverVariable = "LAYERFS_SERVER_FD" // of a server: the link to its holder
	holderVariable = "LAYERFS_HOLDER_FD" // of a holder: the link to its server
	takeVariable   = "LAYERFS_TAKE_FD"   // of a holder: the link to the one that it replaces
)

// A Held is what was left under a name.
type Held struct {
	Data []byte
	File *os.File // nil: none
}

// A state is what a holder tells a server about itself.
type state struct {
	Holder    int // its process
	Takeovers int
	Resumed   bool // there was a server before
}

// A Client is the server's side. The zero value has no holder, and keeps what is put
// for the one that Start starts. Its methods may be called from any number of
// goroutines.
type Client struct {
	mu      sync.Mutex
	items   map[string]held
	link    *link // nil: no holder
	state   state
	problem string
	over    bool
	args    []string
	log     *slog.Logger
	quit    func()
	changed func()
}

// held is an item as the server has it.
type held struct {
	data []byte
	fd   int
	file *os.File // keeps an inherited descriptor from being closed
}

// Inherit returns the server's side when a holder has started this process, with what
// the server before has left; nil when none has. It is called before the process
// starts others.
func Inherit() (*Client, map[string]Held, error) {
	f := inherited(serverVariable)
	if f == nil {
		return nil, nil, nil
	}
	l, err := newLink(f)
	if err != nil {
		return nil, nil, err
	}
	c := &Client{link: l, items: map[string]held{}}
	left := map[string]Held{}
	for {
		m, err := l.receive()
		if err != nil {
			return nil, nil, fmt.Errorf("holder: %w", err)
		}
		switch m.op {
		case opPut:
			left[m.name] = Held{m.data, m.file}
			h := held{data: m.data, fd: -1, file: m.file}
			if m.file != nil {
				h.fd = int(m.file.Fd())
			}
			c.items[m.name] = h
		case opEnd:
			if err := json.Unmarshal(m.data, &c.state); err != nil {
				return nil, nil, fmt.Errorf("holder: %w", err)
			}
			return c, left, nil
		}
	}
}

// Inherits reports whether a holder has started this process.
func Inherits() bool { return os.Getenv(serverVariable) != "" }

// inherited returns the descriptor whose number a variable has.
func inherited(variable string) *os.File {
	fd, err := strconv.Atoi(os.Getenv(variable))
	os.Unsetenv(variable)
	if err != nil || fd < 3 {
		return nil
	}
	syscall.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), variable)
}

// Resumed reports whether the server goes on with what another one has served.
func (c *Client) Resumed() bool { return c.state.Resumed }

// Put gives an item to the holder, in place of one that had its name; fd is -1 for
// none, and must stay open until the item is dropped or replaced. When Put returns the
// item survives this process, if there is a holder.
func (c *Client) Put(name string, data []byte, fd int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.items == nil {
		c.items = map[string]held{}
	}
	c.items[name] = held{data: data, fd: fd}
	c.send(opPut, name, data, fd)
}

// Drop takes an item back; an unknown name is ignored.
func (c *Client) Drop(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.items[name]; !ok {
		return
	}
	delete(c.items, name)
	c.send(opDrop, name, nil, -1)
}

// send sends a message, if there is a holder. Preconditions: c.mu is held.
func (c *Client) send(op byte, name string, data []byte, fd int) {
	if c.link == nil {
		return
	}
	err := c.link.send(op, name, data, fd)
	if err == nil || errors.Is(err, syscall.EMSGSIZE) {
		return
	}
	if !errors.Is(err, syscall.EPIPE) {
		// It lives and does not listen, as when it was stopped. It would take the end of the
		// link for the death of this process, and start another server beside it.
		_ = syscall.Kill(c.state.Holder, syscall.SIGKILL)
	}
	// The reader starts another one, or says that there is none.
	c.link.close()
	c.link = nil
}

// Options say how a Client deals with its holder.
type Options struct {
	// Args is the command line of a server, without the program.
	Args []string
	// Quit is called when another server is to go on: it lets the work come to its end,
	// and ends the process.
	Quit func()
	// Changed is called when there is another holder, or none any more.
	Changed func()
	// Log gets what happens.
	Log *slog.Logger
}

// startAgain is how long after the death of a holder another one is started.
const startAgain = 100 * time.Millisecond

// Start starts a holder, unless there is one, and watches over it until Bye. It returns
// at once.
func (c *Client) Start(o *Options) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.args, c.log, c.quit, c.changed = o.Args, o.Log, o.Quit, o.Changed
	go c.watch(c.link)
}

// maxHolders is how many holders in a row may not be started, or die within a second,
// before no other is tried.
const maxHolders = 3

// watch hears what the holder says, and starts another one when it has died.
func (c *Client) watch(l *link) {
	for failed := 0; ; {
		began := time.Now()
		var err error
		if l == nil {
			if l, err = c.spawn(); err == nil {
				if l == nil {
					return // it is over
				}
				c.changed()
			}
		}
		if err == nil {
			c.listen(l)
			err = errors.New("it died again and again")
			if time.Since(began) > time.Second {
				failed = 0
			}
		}
		if failed++; failed == maxHolders {
			c.fail(fmt.Errorf("there is no holder: %w", err))
			return
		}
		l = nil
		time.Sleep(startAgain)
	}
}

// listen returns when the holder is gone.
func (c *Client) listen(l *link) {
	defer l.close()
	for {
		m, err := l.receive()
		if err != nil {
			c.mu.Lock()
			c.link, c.state.Holder = nil, 0
			c.mu.Unlock()
			return
		}
		if m.op == opQuit {
			c.quit()
		}
	}
}

// fail says that there is no holder and will be none.
func (c *Client) fail(err error) {
	c.mu.Lock()
	c.problem = err.Error()
	over := c.over
	c.mu.Unlock()
	if !over {
		c.log.Warn("the mount ends with its serving process", "reason", err)
		c.changed()
	}
}

// spawn starts a holder and gives it the items; nil when Bye was said.
func (c *Client) spawn() (*link, error) {
	l, theirs, err := pair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	cmd := command(append([]string{Verb}, c.args...), holderVariable, theirs)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		l.close()
		return nil, nil
	}
	if err := cmd.Start(); err != nil {
		l.close()
		return nil, err
	}
	c.state.Holder = cmd.Process.Pid
	text, err := json.Marshal(c.state)
	if err == nil {
		err = l.send(opEnd, "", text, -1)
	}
	for name, h := range c.items {
		if err == nil {
			err = l.send(opPut, name, h.data, h.fd)
		}
	}
	if err == nil {
		err = l.send(opServing, "", pid(), -1)
	}
	if err != nil {
		_ = cmd.Process.Kill() // see send
		c.state.Holder = 0
		l.close()
	}
	go func() { _ = cmd.Wait() }() // how it ended is of no interest
	if err != nil {
		return nil, err
	}
	c.link = l
	return l, nil
}

// command makes a call of this program in a session of its own, with a descriptor
// whose number is in a variable.
func command(args []string, variable string, files ...*os.File) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.ExtraFiles = files // from descriptor 3 on
	cmd.Env = append(os.Environ(), variable+"=3")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

func pid() []byte { return []byte(strconv.Itoa(os.Getpid())) }

// Serving tells the holder that this process serves.
func (c *Client) Serving() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.send(opServing, "", pid(), -1)
}

// Fail tells the holder why this process does not serve; code is what it exits with.
func (c *Client) Fail(err error, code int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	text, jerr := json.Marshal(Failure{err.Error(), code})
	if jerr == nil {
		c.send(opFail, "", text, -1)
	}
}

// Bye tells the holder that nobody need go on.
func (c *Client) Bye() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	c.send(opBye, "", nil, -1)
}

// A Status says how a server is held.
type Status struct {
	// Holder is the process that holds what the next server needs; 0: none.
	Holder int `json:"holder,omitempty"`
	// Takeovers is how many servers there were before this one.
	Takeovers int `json:"takeovers"`
	// Problem is why there is no holder.
	Problem string `json:"problem,omitempty"`
}

// Status returns how the server is held.
func (c *Client) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Status{c.state.Holder, c.state.Takeovers, c.problem}
}

// Refuse says that there shall be no holder, and why.
func (c *Client) Refuse(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.problem = reason
}
