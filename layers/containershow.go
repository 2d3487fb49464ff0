package layers

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"

	"github.com/layerfs/layerfs/layers/changes"
)

// ChangesText returns what "layerfs changes" prints for a container, with names as
// they are.
func (s *Store) ChangesText(ctx context.Context, nameOrID string) ([]byte, error) {
	var text bytes.Buffer
	err := s.Changes(ctx, nameOrID, "", func(c changes.Change) error {
		text.WriteString(c.String())
		return text.WriteByte('\n')
	})
	return text.Bytes(), err
}

// DiffFile writes what Diff gives for a container into a file without a name, which
// takes space until it is closed. The caller closes it.
func (s *Store) DiffFile(ctx context.Context, nameOrID string) (*os.File, error) {
	f, err := s.TempFile()
	if err != nil {
		return nil, err
	}
	if _, err = s.Diff(ctx, f, nameOrID, ""); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// ContainerConfig returns the config of the image that a container was made of, as it
// was received; an empty object for a container that was made of nothing.
func (s *Store) ContainerConfig(c *Container) ([]byte, error) {
	if c.Image == "" {
		return []byte("{}\n"), nil
	}
	return s.Blob(c.Image)
}
