package control

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/layerfs/layerfs/internal/flock"
)

var (
	// ErrNotMounted is returned when no living process serves a mount point.
	ErrNotMounted = errors.New("not mounted")
	// ErrClaimed is returned when another living process already serves a mount
	// point.
	ErrClaimed = errors.New("already mounted")
)

// A Record says which process serves a mount. The names of its JSON fields are
// those that "layerfs mounts --format json" prints.
type Record struct {
	// Mountpoint is absolute and has no symbolic links in it.
	Mountpoint string `json:"mountpoint"`
	// PID is the serving process, as it sees itself.
	PID int `json:"pid"`
	// Holder is the process that starts another one should that die; 0: none.
	Holder int `json:"holder,omitempty"`
	// Takeovers is how many processes have served the mount before.
	Takeovers int `json:"takeovers,omitempty"`
	// Store is the root directory of the store.
	Store string `json:"store"`
	// Driver is what serves: "fuse", or "overlay" when the kernel does the writing.
	Driver string `json:"driver"`
	// Since is when the mount began to answer.
	Since time.Time `json:"since"`
	// Image is the one image that is mounted; empty means the whole store.
	Image string `json:"image,omitempty"`
	// Container is the one container that is mounted.
	Container string `json:"container,omitempty"`
	// Layer is the one layer, on those below it, that is mounted.
	Layer string `json:"layer,omitempty"`
	// Item is the kind and the ID of what is mounted alone.
	Item string `json:"item,omitempty"`
	// Users is how many have asked for a counted mount; 0 for others.
	Users int `json:"users,omitempty"`
	// Log is the file that the process writes its messages to; empty when it
	// writes them to its standard error.
	Log string `json:"log,omitempty"`
}

// A Registry is the set of records below one runroot.
type Registry struct {
	runroot string
}

// NewRegistry returns the registry of a runroot; it touches no file.
func NewRegistry(runroot string) *Registry { return &Registry{runroot: runroot} }

func (r *Registry) dir() string { return filepath.Join(r.runroot, "mounts") }

func (r *Registry) path(mountpoint string) string {
	return filepath.Join(r.dir(), key(mountpoint)+".json")
}

// SocketPath returns the socket of the holder of a mount.
func (r *Registry) SocketPath(mountpoint string) string {
	return filepath.Join(r.dir(), key(mountpoint)+".sock")
}

// LogPath returns the file for the messages of the process that serves
// mountpoint.
func (r *Registry) LogPath(mountpoint string) string {
	return filepath.Join(r.runroot, "log", key(mountpoint)+".log")
}

// ContainersPath makes, and returns, the directory on which the containers are
// mounted that mountpoint shows. Others can reach it below the runroot of root: the
// mount decides who may look into it.
func (r *Registry) ContainersPath(mountpoint string) (string, error) {
	trees := filepath.Join(r.runroot, "trees")
	dir := filepath.Join(trees, key(mountpoint))
	if err := os.MkdirAll(trees, 0o700); err != nil {
		return "", fmt.Errorf("directory of the containers: %w", err)
	}
	if os.Geteuid() == 0 {
		for _, d := range []string{r.runroot, trees} {
			if err := os.Chmod(d, 0o711); err != nil {
				return "", err
			}
		}
	}
	return dir, nil
}

// key turns a mount point into a file name.
func key(mountpoint string) string {
	sum := sha256.Sum256([]byte(mountpoint))
	return hex.EncodeToString(sum[:16])
}

// A Claim is a record that this process holds.
type Claim struct {
	reg  *Registry
	path string

	mu       sync.Mutex
	file     *os.File
	released bool
}

// Claim publishes rec as being served by the calling process until Release or
// the end of the process. It returns ErrClaimed while another process holds the
// mount point.
func (r *Registry) Claim(rec Record) (*Claim, error) {
	if err := os.MkdirAll(r.dir(), 0o700); err != nil {
		return nil, fmt.Errorf("record of the mount: %w", err)
	}
	raw, err := json.MarshalIndent(rec, "", "  ")
	if err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(r.dir(), ".new-")
	if err != nil {
		return nil, fmt.Errorf("record of the mount: %w", err)
	}
	c, err := r.publish(f, r.path(rec.Mountpoint), append(raw, '\n'))
	if err != nil {
		f.Close()
		return nil, err
	}
	return c, nil
}

// publish locks and fills f and links it to path, in place of a dead record.
func (r *Registry) publish(f *os.File, path string, raw []byte) (*Claim, error) {
	defer os.Remove(f.Name())
	if err := flock.Lock(f); err != nil { // nobody else knows the file yet
		return nil, err
	}
	if _, err := f.Write(raw); err != nil {
		return nil, err
	}
	unlock, err := lockDir(r.dir())
	if err != nil {
		return nil, err
	}
	defer unlock()
	rec, alive, err := read(path)
	switch {
	case err == nil && alive:
		return nil, fmt.Errorf("%s: %w by process %d", rec.Mountpoint, ErrClaimed, rec.PID)
	case err == nil:
		err = os.Remove(path)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("record of the mount: %w", err)
	}
	if err := os.Link(f.Name(), path); err != nil {
		return nil, fmt.Errorf("record of the mount: %w", err)
	}
	return &Claim{reg: r, path: path, file: f}, nil
}

// Adopt returns the claim of a process that is gone, whose locked file another one has
// kept open.
func (r *Registry) Adopt(file *os.File, mountpoint string) *Claim {
	return &Claim{reg: r, path: r.path(mountpoint), file: file}
}

// Update replaces the record. keep is called with the new file, which is locked, before
// it is put in the place of the old one. After Release it does nothing.
func (c *Claim) Update(rec Record, keep func(file *os.File)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.released {
		return nil
	}
	raw, err := json.MarshalIndent(rec, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(c.reg.dir(), ".new-")
	if err != nil {
		return fmt.Errorf("record of the mount: %w", err)
	}
	if err := c.replace(f, append(raw, '\n'), keep); err != nil {
		os.Remove(f.Name())
		return errors.Join(fmt.Errorf("record of the mount: %w", err), f.Close())
	}
	old := c.file
	c.file = f
	return old.Close()
}

func (c *Claim) replace(f *os.File, raw []byte, keep func(file *os.File)) error {
	if err := flock.Lock(f); err != nil { // nobody else knows the file yet
		return err
	}
	if _, err := f.Write(raw); err != nil {
		return err
	}
	unlock, err := lockDir(c.reg.dir())
	if err != nil {
		return err
	}
	defer unlock()
	keep(f)
	return os.Rename(f.Name(), c.path)
}

// Release withdraws the record. The file goes before the lock does, so that
// nobody takes it for that of a killed process; the lock is given back even if
// another process has the file, too.
func (c *Claim) Release() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.released = true
	err := os.Remove(c.path)
	if serr := os.Remove(strings.TrimSuffix(c.path, ".json") + ".sock"); !errors.Is(serr, fs.ErrNotExist) {
		err = errors.Join(err, serr)
	}
	return errors.Join(err, flock.Unlock(c.file), c.file.Close())
}

// Mounts returns the records of all living processes, sorted by mount point, and
// removes those of dead ones.
func (r *Registry) Mounts() ([]Record, error) {
	entries, err := os.ReadDir(r.dir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var records []Record
	for _, e := range entries {
		path := filepath.Join(r.dir(), e.Name())
		if !strings.HasSuffix(path, ".json") {
			r.sweep(path)
			continue
		}
		rec, err := r.living(path)
		if errors.Is(err, ErrNotMounted) {
			continue
		}
		if err != nil {
			return nil, err
		}
		records = append(records, r.withUsers(rec))
	}
	slices.SortFunc(records, func(a, b Record) int { return cmp.Compare(a.Mountpoint, b.Mountpoint) })
	return records, nil
}

// Find returns the record of a mount point, ErrNotMounted when no living process
// serves it.
func (r *Registry) Find(mountpoint string) (Record, error) {
	rec, err := r.living(r.path(mountpoint))
	if errors.Is(err, ErrNotMounted) {
		return Record{}, fmt.Errorf("%s: %w", mountpoint, ErrNotMounted)
	}
	return rec, err
}

// Wait returns when no process serves mountpoint any more, or with the context's
// error.
func (r *Registry) Wait(ctx context.Context, mountpoint string) error {
	for {
		_, err := r.Find(mountpoint)
		if errors.Is(err, ErrNotMounted) {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// living returns the record at path; ErrNotMounted when there is none or its
// owner is dead.
func (r *Registry) living(path string) (Record, error) {
	rec, alive, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Record{}, ErrNotMounted
	}
	if err != nil {
		return Record{}, err
	}
	if !alive {
		r.removeDead(path)
		return Record{}, ErrNotMounted
	}
	return rec, nil
}

// read returns the record at path and whether its owner lives. The lock that it
// tries is a shared one: readers do not take each other for owners.
func read(path string) (rec Record, alive bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return Record{}, false, err
	}
	defer f.Close()
	if dead, err := flock.TryShared(f); dead || err != nil {
		return Record{}, false, err
	}
	raw, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return Record{}, false, err
	}
	if err := json.Unmarshal(raw, &rec); err != nil {
		return Record{}, false, fmt.Errorf("record %s: %w", path, err)
	}
	return rec, true, nil
}

// removeDead removes the file of a dead process. It looks again under the lock of
// the directory, because a new process may have taken the place. Errors do not
// matter: what stays is removed by the next one who meets it.
func (r *Registry) removeDead(path string) {
	unlock, err := lockDir(r.dir())
	if err != nil {
		return
	}
	defer unlock()
	if _, alive, err := read(path); err == nil && !alive {
		os.Remove(path)
	}
}

// sweep removes the temporary file of a process that died while it published a
// record. A minute of age leaves alone one that is not locked yet.
func (r *Registry) sweep(path string) {
	info, err := os.Lstat(path)
	if err == nil && info.Mode().IsRegular() && time.Since(info.ModTime()) > time.Minute {
		r.removeDead(path)
	}
}

// lockDir makes the caller the only one who puts records in or takes dead ones
// out; it is held for a few system calls only.
func lockDir(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := flock.Lock(f); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}
