package overlay

import (
	"encoding/binary"
	"sort"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/layers/union"
	"github.com/layerfs/layerfs/layers/upper"
)

// hostName is a name in a directory of the host.
type hostName struct {
	name string
	ino  uint64
	kind uint8 // DT_*
	next int64 // where the host goes on after it
}

// readNames reads a directory of the host. The descriptor is the caller's.
func readNames(at upper.At) ([]hostName, int, error) {
	fd, err := at.Open(unix.O_RDONLY | unix.O_DIRECTORY)
	if err != nil {
		return nil, -1, err
	}
	out, err := readRest(fd)
	if err != nil {
		unix.Close(fd)
		return nil, -1, err
	}
	return out, fd, nil
}

// readRest reads the names that a descriptor of a directory has not given yet.
func readRest(fd int) (out []hostName, err error) {
	buf := make([]byte, 32<<10)
	for {
		n, err := unix.Getdents(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return out, nil
		}
		out = appendNames(out, buf[:n])
	}
}

// appendNames decodes struct linux_dirent64: ino, offset, length, type, name.
func appendNames(out []hostName, buf []byte) []hostName {
	const head = 19
	for len(buf) >= head {
		size := int(binary.NativeEndian.Uint16(buf[16:]))
		if size < head || size > len(buf) {
			return out
		}
		name := buf[head:size]
		for i, c := range name {
			if c == 0 {
				name = name[:i]
				break
			}
		}
		if s := string(name); s != "." && s != ".." {
			out = append(out, hostName{s, binary.NativeEndian.Uint64(buf), buf[18], int64(binary.NativeEndian.Uint64(buf[8:]))})
		}
		buf = buf[size:]
	}
	return out
}

// A Dir is an open directory: a list of names that was made when it was first read
// from the start, so that positions in it stay what they are. Its methods may be
// called from any number of goroutines.
type Dir struct {
	f     *FS
	id    ID
	moved bool

	mu     sync.Mutex
	loaded bool
	d      dir
	first  int            // position of the first name in up
	up     []hostName     // whiteouts left out
	marks  [2]Mark        // of the last two calls of Each
	left   [2]Mark        // of another process
	hidden []string       // sorted: names below that are not listed
	below  *union.Listing // nil: nothing
}

// OpenDir opens a directory.
func (f *FS) OpenDir(id ID) (*Dir, error) {
	d, err := f.dir(id)
	l := &Dir{f: f, id: id}
	if err == nil && d.up != nil {
		l.moved = d.up.moved.Swap(false)
	}
	return l, err
}

// Moved reports whether the directory has got another parent since it was opened the
// last time: what somebody keeps of its list is wrong about "..", and nothing else
// tells.
func (l *Dir) Moved() bool { return l.moved }

// DirEntry is a name in a Dir.
type DirEntry struct {
	Name string
	Ino  ID
	Mode uint32 // the S_IFMT bits
}

// Rewind makes the list anew.
func (l *Dir) Rewind() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left, l.marks = [2]Mark{}, [2]Mark{}
	return l.load()
}

// firstBelow is the position of the first name below: behind all that can be up.
const firstBelow = 1 << 32

// A Mark says how the host goes on at a position.
type Mark struct {
	Position uint64 // 0: none
	Next     int64
}

// Marks returns the marks at the ends of the last two calls of Each: what another
// process needs to go on with the list. What was removed from the directory meanwhile
// has no place in a list that is made anew.
func (l *Dir) Marks() [2]Mark {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.marks
}

// Resume makes the Dir go on where that of another process with these marks was.
func (l *Dir) Resume(marks [2]Mark) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left = marks
}

// loadAt makes the list for somebody who goes on at a position that another process has
// given.
func (l *Dir) loadAt(position int) error {
	if err := l.load(); err != nil || l.d.up == nil {
		return err
	}
	for _, m := range l.left {
		if m.Position == uint64(position) && position > 0 {
			return l.skipTo(m)
		}
	}
	return nil
}

// skipTo leaves out of the list what the host has before a mark.
func (l *Dir) skipTo(m Mark) error {
	at, done, err := l.f.at(l.d.up)
	if err != nil {
		return err
	}
	fd, err := at.Open(unix.O_RDONLY | unix.O_DIRECTORY)
	done()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, err := unix.Seek(fd, m.Next, unix.SEEK_SET); err != nil {
		return err
	}
	rest, err := readRest(fd)
	if err != nil {
		return err
	}
	l.first, l.up = int(m.Position), nil
	for _, e := range rest {
		if white, err := isWhiteout(fd, &e); err == nil && !white {
			l.up = append(l.up, e)
		}
	}
	return nil
}

func (l *Dir) load() error {
	d, err := l.f.dir(l.id)
	if err != nil {
		return err
	}
	l.d, l.first, l.up, l.hidden, l.below = d, 0, nil, nil, nil
	if d.up != nil {
		if err := l.loadUp(); err != nil {
			return err
		}
	}
	if d.hasLower {
		if l.below, err = l.f.below.Open(d.lower); err != nil {
			return err
		}
	}
	l.loaded = true
	return nil
}

// loadUp lists what is up.
func (l *Dir) loadUp() error {
	at, done, err := l.f.at(l.d.up)
	if err == unix.ENOENT {
		return nil // it was removed
	}
	if err != nil {
		return err
	}
	names, fd, err := readNames(at)
	done()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, e := range names {
		white, err := isWhiteout(fd, &e)
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return err
		}
		if !white {
			l.up = append(l.up, e)
		}
		if l.d.hasLower {
			l.hidden = append(l.hidden, e.name)
		}
	}
	sort.Strings(l.hidden)
	return nil
}

// Each calls fn for the names from position on, each with the position after it,
// until fn returns false. With attrs the attributes come, too, and what is up is
// counted as looked up; fn returns whether it took them.
func (l *Dir) Each(position int, attrs bool, fn func(e DirEntry, a *Attr, next int) bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.loaded {
		if err := l.loadAt(position); err != nil {
			return err
		}
	}
	more, err := l.eachUp(position, attrs, fn)
	if err != nil || !more || l.below == nil {
		return err
	}
	return l.eachBelow(max(position-firstBelow, 0), attrs, fn)
}

func (l *Dir) eachUp(position int, attrs bool, fn func(e DirEntry, a *Attr, next int) bool) (more bool, err error) {
	if position >= l.first+len(l.up) {
		return true, nil
	}
	l.marks[0] = l.marks[1]
	fd, err := l.f.pin(l.d.up)
	if err == unix.ENOENT {
		return true, nil // it was removed
	}
	if err != nil {
		return false, err
	}
	defer l.f.fds.unpin(l.d.up)
	for i := max(position, l.first); i < l.first+len(l.up); i++ {
		h := &l.up[i-l.first]
		e, a, err := l.entry(upper.At{Dir: fd, Name: h.name}, h, attrs)
		if err == unix.ENOENT {
			continue // it was removed meanwhile
		}
		if err != nil {
			return false, err
		}
		if !fn(e, a, i+1) {
			if a != nil {
				l.f.Forget(a.ID, 1)
			}
			return false, nil
		}
		l.marks[1] = Mark{uint64(i + 1), h.next}
	}
	return true, nil
}

// entry returns what is listed of a name that is up.
func (l *Dir) entry(at upper.At, h *hostName, attrs bool) (DirEntry, *Attr, error) {
	if !attrs {
		if n := l.f.known(h.ino, 0); n != nil {
			return DirEntry{h.name, n.ino, n.kind}, nil, nil
		}
	}
	lookups := int64(0)
	if attrs {
		lookups = 1
	}
	e, err := l.f.entryUp(&l.d, at, lookups)
	if err == nil && e.n == nil {
		err = unix.ENOENT
	}
	if err != nil {
		return DirEntry{}, nil, err
	}
	out := DirEntry{h.name, e.n.ino, e.n.kind}
	if !attrs {
		l.f.Forget(e.n.id, 0) // nobody has looked it up
		return out, nil, nil
	}
	a := l.f.fromHost(e.n, &e.st)
	return out, &a, nil
}

func (l *Dir) eachBelow(position int, attrs bool, fn func(e DirEntry, a *Attr, next int) bool) error {
	for i := position; i < l.below.Len(); i++ {
		name, n, err := l.below.At(i)
		if err != nil {
			return err
		}
		if l.hides(string(name)) {
			continue
		}
		id := l.f.lowerID(n)
		e := DirEntry{string(name), id, modeOf(n.Kind)}
		var a *Attr
		if attrs {
			got, err := l.attrBelow(i, id, n)
			if err != nil {
				return err
			}
			a = &got
		}
		if !fn(e, a, firstBelow+i+1) {
			if a != nil {
				l.f.Forget(a.ID, 1)
			}
			return nil
		}
	}
	return nil
}

// attrBelow returns the attributes of name i, which is below, counted as looked up.
func (l *Dir) attrBelow(i int, id ID, n union.Node) (Attr, error) {
	if up := l.f.get(id); up != nil && up.up.Load() && n.Kind != kindDirectory {
		// Another name of a file that was copied up.
		l.f.mu.Lock()
		up.counted(1)
		l.f.mu.Unlock()
		return l.f.attr(up)
	}
	_, _, a, err := l.below.Attr(i)
	return l.f.fromLower(id, &a), err
}

func (l *Dir) hides(name string) bool {
	if len(l.hidden) == 0 {
		return false
	}
	i := sort.SearchStrings(l.hidden, name)
	return i < len(l.hidden) && l.hidden[i] == name
}

// Parent returns the directory that a directory is in; the root is in itself.
func (f *FS) Parent(id ID) ID {
	if n := f.get(id); n != nil {
		n.place.RLock()
		p := n.parent
		n.place.RUnlock()
		if p != nil {
			return p.id
		}
		if n.up.Load() || n == f.root {
			return Root
		}
	}
	if l, ok := f.lowerNode(id); ok && l.Kind == kindDirectory {
		if p, err := f.below.Parent(f.below.DirID(l)); err == nil {
			return f.dirID(p)
		}
	}
	return Root
}
