package layers

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/layerfs/layerfs/internal/blob"
	"github.com/layerfs/layerfs/internal/flock"
)

// What a repair cannot mend is put aside, so that everything else goes on working
// and nobody is shown wrong bytes:
//
//	<root>/quarantine/bodies         the digests of damaged bodies, one a line; reading one is an error
//	<root>/quarantine/layers/<hex>   the directory of a layer whose tree is lost
//	<root>/quarantine/index.db-…     what was replaced, for those who want to look at it
//
// A load or a repair from an archive that has what is missing takes it out again.

func (s *Store) quarantineDir() string { return filepath.Join(s.root, "quarantine") }

func (s *Store) quarantinedLayer(d DiffID) string {
	return filepath.Join(s.quarantineDir(), "layers", d.Hex())
}

// isQuarantined reports whether the layer's directory was put aside.
func (s *Store) isQuarantined(d DiffID) bool {
	_, err := os.Lstat(s.quarantinedLayer(d))
	return err == nil
}

// aside returns a name in quarantine for a file that is replaced.
func (s *Store) aside(name string) (string, error) {
	if err := s.disk.MkdirAll(s.quarantineDir(), 0o700); err != nil {
		return "", err
	}
	return filepath.Join(s.quarantineDir(), name+"-"+time.Now().UTC().Format("20060102T150405.000000000")), nil
}

// quarantineLayer moves what is left of a layer aside. Its record stays.
func (s *Store) quarantineLayer(d DiffID) error {
	to := s.quarantinedLayer(d)
	if err := s.disk.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	if err := s.disk.RemoveAll(to); err != nil { // of an earlier damage
		return err
	}
	err := s.disk.Rename(s.layerDir(d), to)
	if errors.Is(err, fs.ErrNotExist) {
		return s.disk.Mkdir(to, 0o700) // there was nothing left
	}
	return err
}

// releaseLayer forgets the quarantine of a layer that is whole again.
func (s *Store) releaseLayer(d DiffID) error {
	if !s.isQuarantined(d) {
		return nil
	}
	return s.disk.RemoveAll(s.quarantinedLayer(d))
}

// badList caches the list of damaged bodies.
type badList struct {
	mu   sync.Mutex
	mark time.Time
	size int64
	sums map[blob.Sum]bool
}

func (s *Store) badListPath() string { return filepath.Join(s.quarantineDir(), "bodies") }

// damagedBodies returns the bodies that are known to be damaged; nil when there are
// none, as nearly always.
func (s *Store) damagedBodies() map[blob.Sum]bool {
	info, err := os.Stat(s.badListPath())
	if err != nil {
		return nil
	}
	s.bad.mu.Lock()
	defer s.bad.mu.Unlock()
	if s.bad.sums != nil && s.bad.mark.Equal(info.ModTime()) && s.bad.size == info.Size() {
		return s.bad.sums
	}
	sums, err := readBadList(s.badListPath())
	if err != nil {
		return nil
	}
	s.bad.mark, s.bad.size, s.bad.sums = info.ModTime(), info.Size(), sums
	return sums
}

func readBadList(path string) (map[blob.Sum]bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sums := map[blob.Sum]bool{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var sum blob.Sum
		if n, err := hex.Decode(sum[:], lines.Bytes()[:min(64, len(lines.Bytes()))]); err == nil && n == len(sum) {
			sums[sum] = true
		}
	}
	return sums, nil
}

// changeBadList adds to the list of damaged bodies and takes out of it. Any number
// of processes may do so.
func (s *Store) changeBadList(add, remove map[blob.Sum]bool) error {
	if len(add) == 0 && len(remove) == 0 {
		return nil
	}
	if len(add) == 0 {
		if _, err := os.Stat(s.badListPath()); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	if err := s.disk.MkdirAll(s.quarantineDir(), 0o700); err != nil {
		return err
	}
	lock, err := os.Open(s.quarantineDir())
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := flock.Lock(lock); err != nil {
		return err
	}
	sums, err := readBadList(s.badListPath())
	if errors.Is(err, fs.ErrNotExist) {
		sums, err = map[blob.Sum]bool{}, nil
	}
	if err != nil {
		return err
	}
	for sum := range add {
		sums[sum] = true
	}
	for sum := range remove {
		delete(sums, sum)
	}
	if len(sums) == 0 {
		err := s.disk.Remove(s.badListPath())
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return err
	}
	var text strings.Builder
	for sum := range sums {
		fmt.Fprintf(&text, "%x\n", sum)
	}
	return s.disk.WriteFile(s.badListPath(), []byte(text.String()), 0o600)
}

// refuseBad returns ErrDamaged for a body that is known to be damaged.
func (l *Layer) refuseBad(sum blob.Sum) error {
	if l.bad == nil || !l.bad[sum] {
		return nil
	}
	return fmt.Errorf("%w: layer %s: the file content sha256:%x is in quarantine; run `layerfs check --repair --from ARCHIVE`, or load its image again", ErrDamaged, l.DiffID, sum)
}
