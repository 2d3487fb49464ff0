package deflate

import (
	"errors"
	"fmt"
)

// ErrNotGzip is returned by Analyze for what is not one or more gzip members that
// inflate without an error, trailing bytes apart.
var ErrNotGzip = errors.New("not a valid gzip stream")

// ErrCorrection is returned by Reconstruct for a correction that is damaged, or that
// was not made for this plaintext.
var ErrCorrection = errors.New("not a correction for this plaintext")

// ErrVersion is returned by Reconstruct for a correction that a newer layerfs wrote.
var ErrVersion = errors.New("correction of a newer version")

func notGzip(format string, args ...any) error {
	return fmt.Errorf("inflate: %w: %s", ErrNotGzip, fmt.Sprintf(format, args...))
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf("correction: %w: %s", ErrCorrection, fmt.Sprintf(format, args...))
}
