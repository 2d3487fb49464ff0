package mount

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// helperWait is how long fusermount3 may hold its output open after it has ended.
const helperWait = 5 * time.Second

// helper finds fusermount3. Services and cron jobs have short search paths, so the usual places are tried as well.
func helper() (string, error) {
	if path, err := exec.LookPath("fusermount3"); err == nil {
		return path, nil
	}
	for _, path := range []string{"/usr/bin/fusermount3", "/bin/fusermount3", "/usr/local/bin/fusermount3"} {
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", ErrNoHelper
}

// mountHelper mounts with fusermount3, which opens /dev/fuse, mounts and sends the descriptor back over a socket.
func mountHelper(dir string, o Options) (*os.File, error) {
	path, err := helper()
	if err != nil {
		return nil, err
	}
	if o.Suid || o.Dev {
		return nil, fmt.Errorf("options suid and dev: %w for an ordinary user: fusermount3 always mounts nosuid,nodev", ErrPermission)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "fusermount3"), os.NewFile(uintptr(pair[1]), "fusermount3")
	defer ours.Close()
	cmd := exec.Command(path, "-o", helperOptions(o), "--", dir)
	cmd.Env = append(os.Environ(), "_FUSE_COMMFD=3", "LC_ALL=C")
	cmd.ExtraFiles = []*os.File{theirs}
	err = runHelper(cmd)
	theirs.Close()
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	return receive(ours)
}

// helperOptions writes the mount options as fusermount3 reads them: commas and backslashes in values are escaped.
func helperOptions(o Options) string {
	escape := strings.NewReplacer(`\`, `\\`, `,`, `\,`).Replace
	access := "ro"
	if o.Writable {
		access = "rw"
	}
	list := []string{access}
	if !o.Unchecked {
		list = append(list, "default_permissions")
	}
	list = append(list, "fsname="+escape(o.Source), "subtype="+escape(o.Subtype))
	if o.AllowOther {
		list = append(list, "allow_other")
	}
	if o.NoExec {
		list = append(list, "noexec")
	}
	if o.MaxRead > 0 {
		list = append(list, fmt.Sprintf("max_read=%d", o.MaxRead))
	}
	return strings.Join(list, ",")
}

// receive takes the descriptor from the socket.
func receive(sock *os.File) (*os.File, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(int(sock.Fd()), make([]byte, 16), oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	if err != nil {
		return nil, fmt.Errorf("fusermount3: descriptor: %w", err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		return nil, errors.New("fusermount3: it sent no descriptor")
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.New("fusermount3: it sent no descriptor")
	}
	return os.NewFile(uintptr(fds[0]), "/dev/fuse"), nil
}

// runHelper runs fusermount3 and makes one error of what it says.
func runHelper(cmd *exec.Cmd) error {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &out, helperWait
	err := cmd.Run()
	if err == nil {
		return nil
	}
	said := strings.TrimSpace(strings.ReplaceAll(out.String(), "fusermount3: ", ""))
	if said == "" {
		return fmt.Errorf("fusermount3: %w", err)
	}
	return explain(said)
}

// explain adds what to do to the messages of fusermount3 that users meet.
func explain(said string) error {
	has := func(s string) bool { return strings.Contains(said, s) }
	switch {
	case has("user_allow_other"):
		return fmt.Errorf("option allow_other: %w: ask the administrator to put user_allow_other into /etc/fuse.conf, or mount without it", ErrPermission)
	case has("write access"), has("Permission denied"):
		return fmt.Errorf("%w: an ordinary user can mount only on a directory that belongs to them (%s)", ErrPermission, said)
	case has("Operation not permitted"):
		return fmt.Errorf("%w: is fusermount3 setuid root and the directory yours? (%s)", ErrPermission, said)
	case has("not found in /etc/mtab"), has("Invalid argument"), has("not mounted"):
		return fmt.Errorf("%w (%s)", ErrNotMounted, said)
	case has("Device or resource busy"), has("target is busy"):
		return ErrBusy
	case has("No such file or directory"), has("No such device"):
		return fmt.Errorf("%w (%s)", ErrNoDevice, said)
	case has("too many FUSE filesystems"):
		return fmt.Errorf("%w: mount_max in /etc/fuse.conf is reached (%s)", ErrPermission, said)
	}
	return fmt.Errorf("fusermount3: %s", said)
}

// unmountHelper unmounts with fusermount3.
func unmountHelper(dir string, lazy bool) error {
	path, err := helper()
	if err != nil {
		return err
	}
	flags := "-u"
	if lazy {
		flags = "-uz"
	}
	cmd := exec.Command(path, flags, "--", dir)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	if err := runHelper(cmd); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	return nil
}
