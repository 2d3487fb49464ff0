package index

import "errors"

var (
	// ErrNotFound is returned when a record that was asked for is not in the index.
	ErrNotFound = errors.New("not found")
	// ErrExists is returned when a record that must be new is already there.
	ErrExists = errors.New("already exists")
	// ErrBusy is returned when the index could not be locked in time; the text
	// names the process that holds it.
	ErrBusy = errors.New("store is busy")
	// ErrNewer is returned when the index was written by a newer layerfs, in a
	// version that this one does not know.
	ErrNewer = errors.New("index has a newer format")
	// ErrJournal is returned by Verify when the journal is damaged, but not the index.
	ErrJournal = errors.New("journal of the index is damaged")
	// ErrDamaged is returned when index.db or a record in it cannot be read.
	ErrDamaged = errors.New("index is damaged")
)
