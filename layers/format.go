package layers

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/layerfs/layerfs/internal/disk"
)

// FormatVersion is the version of the store directory that this package writes.
const FormatVersion = 1

// A Format is the content of a store's file "format": a version and named features
// in three classes. An unknown incompatible feature forbids to open the store, an
// unknown read-only compatible one forbids to change it, an unknown compatible one
// does not matter.
type Format struct {
	Version            int      `json:"version"`
	Incompatible       []string `json:"incompatible"`
	ReadOnlyCompatible []string `json:"read_only_compatible"`
	Compatible         []string `json:"compatible"`
}

// The features that this package knows.
var (
	knownIncompatible       = []string{"pack-v1", "split-v1", "tree-v1"}
	knownReadOnlyCompatible = []string{}
)

func newFormat() Format {
	return Format{
		Version: FormatVersion, Incompatible: knownIncompatible,
		ReadOnlyCompatible: []string{}, Compatible: []string{},
	}
}

// readFormat reads root/format; fs.ErrNotExist says that there is none.
func readFormat(root string) (Format, error) { return parseFormat(filepath.Join(root, "format")) }

func parseFormat(path string) (Format, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return Format{}, err
	}
	var f Format
	dec := json.NewDecoder(bytes.NewReader(raw))
	if err := dec.Decode(&f); err != nil || f.Version <= 0 {
		return Format{}, fmt.Errorf("%w: %s cannot be read as a format file; run `layerfs check --repair`", ErrDamaged, path)
	}
	return f, nil
}

// check returns ErrNewer when the store must not be opened, or must not be opened
// for writing.
func (f Format) check(root string, readOnly bool) error {
	if f.Version > FormatVersion {
		return fmt.Errorf("%w: %s has format %d, but this layerfs knows only up to %d; use a newer layerfs for it",
			ErrNewer, root, f.Version, FormatVersion)
	}
	if unknown := missing(f.Incompatible, knownIncompatible); len(unknown) > 0 {
		return fmt.Errorf("%w: %s needs the feature %s, which this layerfs does not know; use a newer layerfs for it",
			ErrNewer, root, strings.Join(unknown, ", "))
	}
	if unknown := missing(f.ReadOnlyCompatible, knownReadOnlyCompatible); len(unknown) > 0 && !readOnly {
		return fmt.Errorf("%w: %s has the feature %s, without which it can only be read; use a newer layerfs to change it",
			ErrNewer, root, strings.Join(unknown, ", "))
	}
	return nil
}

func missing(have, known []string) []string {
	var unknown []string
	for _, name := range have {
		if !slices.Contains(known, name) {
			unknown = append(unknown, fmt.Sprintf("%q", name))
		}
	}
	return unknown
}

// writeFormat makes the directory a store; it comes last, so that a directory with
// a format file is complete.
func writeFormat(d *disk.Disk, root string) error {
	raw, err := json.MarshalIndent(newFormat(), "", "  ")
	if err != nil {
		return err
	}
	if err := d.WriteNew(formatCopy(root), append(raw, '\n'), 0o600); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	err = d.WriteNew(filepath.Join(root, "format"), append(raw, '\n'), 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil // another process has just made the same store
	}
	return err
}

// formatCopy is where the format is said again: a damaged format file could name a
// feature that nobody knows, and be taken for that of a newer layerfs.
func formatCopy(root string) string { return filepath.Join(root, "format.copy") }

// useFormat reads the format file and decides whether the store may be opened; for a
// repair it may also when the copy says so.
func useFormat(root string, readOnly, repair bool) error {
	f, err := readFormat(root)
	if err == nil {
		err = f.check(root, readOnly)
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if c, cerr := parseFormat(formatCopy(root)); cerr == nil && c.check(root, readOnly) == nil && errors.Is(err, ErrNewer) {
		if repair {
			return nil
		}
		return fmt.Errorf("%w; if none was used here, the file is damaged: run `layerfs check --repair`", err)
	}
	return err
}

// checkFormat compares the format file with its copy, if there is one.
func checkFormat(root string) error {
	f, err := readFormat(root)
	if err != nil {
		return err
	}
	c, err := parseFormat(formatCopy(root))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a store of an older layerfs
	}
	if err != nil {
		return err
	}
	if !f.equal(c) {
		return fmt.Errorf("%w: format and format.copy differ; run `layerfs check --repair`", ErrDamaged)
	}
	return nil
}

func (f Format) equal(g Format) bool {
	return f.Version == g.Version && slices.Equal(f.Incompatible, g.Incompatible) &&
		slices.Equal(f.ReadOnlyCompatible, g.ReadOnlyCompatible) && slices.Equal(f.Compatible, g.Compatible)
}

// repairFormat writes the format file and its copy anew. Of the two, that which this
// layerfs understands is right; when neither can be read the trees and the index,
// which have versions of their own, tell what is too new.
func repairFormat(d *disk.Disk, root string) error {
	good := newFormat()
	for _, path := range []string{filepath.Join(root, "format"), formatCopy(root)} {
		if f, err := parseFormat(path); err == nil && f.check(root, false) == nil {
			good = f
			break
		}
	}
	raw, err := json.MarshalIndent(good, "", "  ")
	if err != nil {
		return err
	}
	for _, path := range []string{formatCopy(root), filepath.Join(root, "format")} {
		if err := d.WriteFile(path, append(raw, '\n'), 0o600); err != nil {
			return err
		}
	}
	return nil
}
