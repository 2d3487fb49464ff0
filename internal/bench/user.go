package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// A credential is the ordinary user that programs run as.
type credential struct {
	uid, gid int
	home     string
}

// apply makes a command run as the user.
func (c *credential) apply(cmd *exec.Cmd) {
	if c == nil {
		return
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(c.uid), Gid: uint32(c.gid)}}
	cmd.Env = append(cmd.Env, "HOME="+c.home)
	cmd.Dir = "/"
}

// ordinary finds the user for the rows of ordinary users.
func (b *bench) ordinary() (*credential, error) {
	name := b.user
	if name == "" {
		f, err := os.Open("/etc/subuid")
		if err != nil {
			return nil, fmt.Errorf("no ordinary user to be; give one with -user: %w", err)
		}
		defer f.Close()
		s := bufio.NewScanner(f)
		for s.Scan() && name == "" {
			owner, _, _ := strings.Cut(s.Text(), ":")
			if _, err := user.Lookup(owner); err == nil && owner != "root" {
				name = owner
			}
		}
		if name == "" {
			return nil, errors.New("no ordinary user has subordinate IDs; give one with -user")
		}
	}
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.Atoi(u.Gid)
	return &credential{uid, gid, u.HomeDir}, err
}

// asUser runs rows with all programs started as an ordinary user, in a work
// directory of his.
func (b *bench) asUser(rows func(*bench) error) (err error) {
	c, err := b.ordinary()
	if err != nil {
		return err
	}
	u := *b
	u.as, u.trees, u.place, u.big, u.lines, u.skipped, u.cleanup = c, map[string]*treesOf{}, nil, nil, nil, nil, nil
	if u.work, err = b.dir("user"); err != nil {
		return err
	}
	// He must get there, and at copies of the programs.
	if err := errors.Join(os.Chmod(b.work, 0o711), os.Chown(u.work, c.uid, c.gid)); err != nil {
		return err
	}
	for _, p := range []*string{&u.binary, &u.self} {
		from := *p
		*p = filepath.Join(u.work, filepath.Base(from))
		if err := copyProgram(from, *p); err != nil {
			return err
		}
	}
	if _, err := u.command("test", "-x", u.binary); err != nil {
		return fmt.Errorf("%s is no place for an ordinary user; give another with -work: %w", b.work, err)
	}
	defer func() {
		u.undo()
		b.lines, b.skipped = append(b.lines, u.lines...), append(b.skipped, u.skipped...)
		err = errors.Join(err, os.RemoveAll(u.work))
	}()
	return rows(&u)
}

func copyProgram(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
