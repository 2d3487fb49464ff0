package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	layerfs "github.com/layerfs/layerfs/fs"
	"github.com/layerfs/layerfs/internal/control"
	"github.com/layerfs/layerfs/internal/hold"
)

// Names of what the serving process gives to its holder, besides what the packages
// below give.
const (
	heldClaim  = "claim"  // the locked record of the mount
	heldMounts = "mounts" // mount points, as JSON
)

// holderDelay is how long after the mount answers its holder is started: whoever waited
// for the mount uses the CPUs now.
const holderDelay = 50 * time.Millisecond

// stopWait is how long requests may take to come to an end when another process goes
// on with the mount.
const stopWait = 500 * time.Millisecond

// runHolder is the life of a holder in the background.
func runHolder(args []string, stderr io.Writer) int {
	h := newHolder(args, slog.New(slog.NewTextHandler(stderr, nil)))
	return h.Run()
}

func newHolder(args []string, log *slog.Logger) *hold.Holder {
	return &hold.Holder{Args: args, Log: log, GiveUp: giveUp}
}

// giveUp takes away the mounts that nobody serves any more.
func giveUp(items map[string]hold.Held) {
	var dirs []string
	if json.Unmarshal(items[heldMounts].Data, &dirs) != nil {
		return
	}
	for _, dir := range dirs {
		_ = unmountDir(dir, true) // what stays is a dead mount, which the next one takes away
	}
}

// A serving is what a process that serves a mount has to do with its holder.
type serving struct {
	*hold.Client
	left map[string]hold.Held
	// begun: there is a holder, which has started this process.
	begun  bool
	claim  *control.Claim
	record control.Record
	reg    *control.Registry
	log    *slog.Logger
	server served
}

// inherit returns what this process has from its holder, if it has one.
func inherit() (*serving, error) {
	c, left, err := hold.Inherit()
	if err != nil {
		return nil, err
	}
	if c == nil {
		return &serving{Client: &hold.Client{}}, nil
	}
	return &serving{Client: c, left: left, begun: true}, nil
}

// kept returns what is left for package fs.
func (s *serving) kept() map[string]layerfs.Kept {
	if !s.Resumed() {
		return nil
	}
	out := map[string]layerfs.Kept{}
	for name, h := range s.left {
		out[name] = layerfs.Kept{Data: h.Data, File: h.File}
	}
	return out
}

// locks returns the locks of containers that are left.
func (s *serving) locks() map[string]*os.File {
	out := map[string]*os.File{}
	for name, h := range s.left {
		if id, ok := strings.CutPrefix(name, "container/"); ok && h.File != nil {
			out[id] = h.File
		}
	}
	return out
}

// keepLock gives a lock to the holder.
func (s *serving) keepLock(name string, fd int) {
	if fd < 0 {
		s.Drop(name)
		return
	}
	s.Put(name, nil, fd)
}

// adopt goes on with the record of the process before.
func (s *serving) adopt(reg *control.Registry) error {
	left := s.left[heldClaim]
	if left.File == nil {
		return errors.New("handover: there is no record of the mount")
	}
	if err := json.Unmarshal(left.Data, &s.record); err != nil {
		return fmt.Errorf("handover: record of the mount: %w", err)
	}
	s.reg, s.claim = reg, reg.Adopt(left.File, s.record.Mountpoint)
	return nil
}

// start gives the holder what it needs, and starts it if there is none yet. The mount
// answers already.
func (s *serving) start(args []string, beside string) {
	if !s.begun {
		time.Sleep(holderDelay)
	}
	if err := s.give(args, beside); err != nil {
		s.Refuse(err.Error())
		s.log.Warn("the mount ends with its serving process", "reason", err)
		return
	}
	s.update()
	s.Start(&hold.Options{Args: args, Quit: s.quit, Changed: s.update, Log: s.log})
	s.Serving()
}

func (s *serving) give(args []string, beside string) error {
	if err := s.server.Handover(); err != nil {
		return err
	}
	text, err := json.Marshal(args)
	if err != nil {
		return err
	}
	s.Put(hold.ItemArgs, text, -1)
	dirs := []string{s.record.Mountpoint}
	if beside != "" {
		dirs = append(dirs, beside)
	}
	if text, err = json.Marshal(dirs); err != nil {
		return err
	}
	s.Put(heldMounts, text, -1)
	if s.left[hold.ItemListen].File != nil {
		return nil
	}
	socket, err := hold.Listen(s.reg.SocketPath(s.record.Mountpoint))
	if err != nil {
		return err
	}
	s.Put(hold.ItemListen, nil, int(socket.Fd()))
	s.left = map[string]hold.Held{hold.ItemListen: {File: socket}} // which keeps it open
	return nil
}

// update writes down which processes there are now.
func (s *serving) update() {
	st := s.Status()
	s.record.PID, s.record.Holder, s.record.Takeovers = os.Getpid(), st.Holder, st.Takeovers
	text, err := json.Marshal(s.record)
	if err == nil {
		err = s.claim.Update(s.record, func(file *os.File) { s.Put(heldClaim, text, int(file.Fd())) })
	}
	if err != nil {
		s.log.Warn("record of the mount", "error", err)
	}
}

// quit ends this process, because another one goes on.
func (s *serving) quit() {
	s.server.Stop(stopWait)
	os.Exit(exitOK)
}

// supervise serves in the foreground: this process is the holder.
func (e *env) supervise(args []string, taken *os.File) error {
	reply := control.NewReply()
	socket := os.Getenv("NOTIFY_SOCKET")
	os.Unsetenv("NOTIFY_SOCKET") // the service manager hears from this process
	h := newHolder(args, e.logger())
	h.Ready = func() {
		os.Setenv("NOTIFY_SOCKET", socket)
		if err := reply.Ready(); err != nil {
			h.Log.Warn("nobody to tell that the mount answers", "error", err)
		}
		os.Unsetenv("NOTIFY_SOCKET")
	}
	code, err := h.Supervise(taken)
	var f *hold.Failure
	switch {
	case errors.As(err, &f):
		return &control.StartError{Text: f.Text, Code: f.Code}
	case err != nil:
		return err
	case code != exitOK:
		return &quietError{&control.StartError{Text: "the serving process failed", Code: code}}
	}
	return nil
}

// takeover lets this program go on with a mount that another process serves. It
// reports whether there is such a mount.
func (e *env) takeover(ctx context.Context, o *mountOptions) (bool, error) {
	reg, err := e.registry()
	if err != nil {
		return false, err
	}
	dir := resolveMountpoint(o.dir)
	rec, err := reg.Find(dir)
	if errors.Is(err, control.ErrNotMounted) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	conn, err := connectHolder(ctx, reg, rec)
	if err != nil {
		return true, fmt.Errorf("%s: %w", dir, err)
	}
	defer conn.Close()
	if o.foreground {
		return true, e.supervise(nil, conn)
	}
	log, err := control.OpenLog(reg.LogPath(dir))
	if err != nil {
		return true, err
	}
	defer log.Close()
	if err := hold.SpawnTaker(conn, log); err != nil {
		return true, fmt.Errorf("%s: %w", dir, err)
	}
	return true, nil
}

// connectHolder connects to the holder of a mount, which may be starting only now.
func connectHolder(ctx context.Context, reg *control.Registry, rec control.Record) (*os.File, error) {
	for end := time.Now().Add(time.Second); ; {
		conn, err := hold.Connect(reg.SocketPath(rec.Mountpoint))
		if err == nil || time.Now().After(end) || ctx.Err() != nil {
			return conn, err
		}
		time.Sleep(20 * time.Millisecond)
	}
}
