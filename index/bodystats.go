package index

import "encoding/binary"

// BodyStats are sums over all bodies of the store, each counted once.
type BodyStats struct {
	Objects     int64 `json:"objects"`      // bodies in files of their own
	ObjectBytes int64 `json:"object_bytes"` // their logical size
	Packed      int64 `json:"packed"`       // bodies in packs
	PackedBytes int64 `json:"packed_bytes"` // their size
}

var keyBodyStats = []byte("bodies")

// count adds a body, or with n = -1 takes it away.
func (s *BodyStats) count(b Body, n int64) {
	if b.Pack == 0 {
		s.Objects += n
		s.ObjectBytes += n * b.Size
		return
	}
	s.Packed += n
	s.PackedBytes += n * b.Size
}

// BodyStats returns the sums. They are kept up to date with every change; an index
// that was never changed since they are known is counted.
func (tx *Tx) BodyStats() (s BodyStats, err error) {
	meta := tx.bucket(bucketMeta)
	if meta == nil {
		return s, nil
	}
	if raw := meta.Get(keyBodyStats); len(raw) == 4*8 {
		for i, field := range s.fields() {
			*field = int64(binary.BigEndian.Uint64(raw[8*i:]))
		}
		return s, nil
	}
	err = tx.EachBody(Sum{}, func(_ Sum, b Body) error {
		s.count(b, 1)
		return nil
	})
	return s, err
}

func (s *BodyStats) fields() []*int64 {
	return []*int64{&s.Objects, &s.ObjectBytes, &s.Packed, &s.PackedBytes}
}

// addBodyStats brings the sums up to date at the end of a transaction.
func (tx *Tx) addBodyStats() error {
	if tx.bodies == (BodyStats{}) {
		return nil
	}
	meta := tx.bucket(bucketMeta)
	counted := meta.Get(keyBodyStats) != nil
	s, err := tx.BodyStats()
	if err != nil {
		return err
	}
	var raw []byte
	for i, field := range s.fields() {
		if counted { // otherwise the changes of this transaction are in already
			*field += *tx.bodies.fields()[i]
		}
		raw = binary.BigEndian.AppendUint64(raw, uint64(*field))
	}
	return meta.Put(keyBodyStats, raw)
}
