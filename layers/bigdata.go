package layers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/layerfs/layerfs/index"
)

// A DataItem is an item of big data: a named blob of any size beside an image, a
// layer record or a container. The key may have any bytes; it is never a path.
type DataItem struct {
	Key    []byte        `json:"key"` // in JSON base64, as all bytes
	Size   int64         `json:"size"`
	Digest digest.Digest `json:"digest"`
	Stored time.Time     `json:"stored"`
}

func now() time.Time { return time.Now().UTC().Round(0) }

// SetBigData stores what r has under the key, in the place of what was there. The
// content is read and synced before the item is changed.
func (s *Store) SetBigData(ctx context.Context, nameOrID string, key []byte, r io.Reader) (_ *DataItem, err error) {
	if err := s.writable(); err != nil {
		return nil, err
	}
	if len(key) > index.MaxDataKey {
		return nil, fmt.Errorf("%w: a key of %d bytes; a key has at most %d", ErrInvalidName, len(key), index.MaxDataKey)
	}
	if _, err := s.Item(ctx, nameOrID); err != nil {
		return nil, err
	}
	lease, err := s.NewLease(ctx, "bigdata set")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lease.Close()) }()
	d, size, err := s.putLarge(ctx, lease, r)
	if err != nil {
		return nil, fmt.Errorf("big data of %s: %w", nameOrID, err)
	}
	out := &DataItem{Key: key, Size: size, Digest: d, Stored: now()}
	err = s.index.Update(ctx, "bigdata set", func(tx *index.Tx) error {
		it, err := resolveItem(tx, nameOrID)
		if err != nil {
			return err
		}
		return tx.PutData(it.owner(), key, index.Data{Digest: d, Size: size, Stored: out.Stored})
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// putLarge stores a blob of any size. It is held before it gets its name.
func (s *Store) putLarge(ctx context.Context, lease *Lease, r io.Reader) (digest.Digest, int64, error) {
	temp, err := s.newTemp("bigdata")
	if err != nil {
		return "", 0, err
	}
	st, err := s.blobs.StageLarge(temp.path, &ctxReader{ctx, r})
	if err == nil {
		err = lease.RetainBlob(ctx, digest.NewDigestFromBytes(digest.SHA256, st.Sum[:]))
	}
	if err == nil {
		err = st.Publish()
	}
	if err = errors.Join(err, temp.remove()); err != nil {
		return "", 0, err
	}
	return digest.NewDigestFromBytes(digest.SHA256, st.Sum[:]), st.Size, nil
}

// A ctxReader stops reading when its context ends.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *ctxReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// BigData returns what is stored under the key and a reader of it, which is verified
// as it is read: a wrong digest is ErrDamaged at its end. The caller closes it. It
// returns ErrNoData when there is nothing.
func (s *Store) BigData(ctx context.Context, nameOrID string, key []byte) (*DataItem, io.ReadCloser, error) {
	var out DataItem
	err := s.index.View(ctx, func(tx *index.Tx) error {
		it, err := resolveItem(tx, nameOrID)
		if err != nil {
			return err
		}
		d, err := tx.Data(it.owner(), key)
		out = DataItem{Key: key, Size: d.Size, Digest: d.Digest, Stored: d.Stored}
		return noData(err, it, key)
	})
	if err != nil {
		return nil, nil, err
	}
	f, err := s.blobs.OpenBlob(sumOf(out.Digest))
	if err != nil {
		return nil, nil, fmt.Errorf("%w: big data %q of %s: %w; set it again", ErrDamaged, key, nameOrID, err)
	}
	return &out, &verifiedReader{f: f, want: out, hash: digest.SHA256.Hash()}, nil
}

func noData(err error, it *Item, key []byte) error {
	if errors.Is(err, index.ErrNotFound) {
		return fmt.Errorf("%w: %s %.12s has nothing under the key %q", ErrNoData, it.Kind, it.ID, key)
	}
	return err
}

// ListBigData returns the big data of an item in the byte order of the keys.
func (s *Store) ListBigData(ctx context.Context, nameOrID string) ([]DataItem, error) {
	var out []DataItem
	err := s.index.View(ctx, func(tx *index.Tx) error {
		out = []DataItem{}
		it, err := resolveItem(tx, nameOrID)
		if err != nil {
			return err
		}
		return tx.EachData(it.owner(), func(key []byte, d index.Data) error {
			out = append(out, DataItem{Key: key, Size: d.Size, Digest: d.Digest, Stored: d.Stored})
			return nil
		})
	})
	return out, err
}

// RemoveBigData removes what is stored under the key, or returns ErrNoData. Its
// space is freed by the next collection.
func (s *Store) RemoveBigData(ctx context.Context, nameOrID string, key []byte) error {
	if err := s.writable(); err != nil {
		return err
	}
	return s.index.Update(ctx, "bigdata rm", func(tx *index.Tx) error {
		it, err := resolveItem(tx, nameOrID)
		if err != nil {
			return err
		}
		return noData(tx.DeleteData(it.owner(), key), it, key)
	})
}
