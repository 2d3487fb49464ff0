package index

import (
	"context"
	"fmt"
	"io"
	"unicode/utf8"

	bolt "go.etcd.io/bbolt"
)

// Dump writes the whole index as text, bucket by bucket in key order, for people
// and for the test that keeps the drawing of the schema honest.
func (db *DB) Dump(ctx context.Context, w io.Writer) error {
	return db.View(ctx, func(tx *Tx) error {
		if tx.root == nil {
			return nil
		}
		fmt.Fprintf(w, "%s\n", versionKey)
		return dumpBucket(w, tx.root, "  ")
	})
}

func dumpBucket(w io.Writer, b *bolt.Bucket, indent string) error {
	return b.ForEach(func(k, v []byte) error {
		if v == nil {
			fmt.Fprintf(w, "%s%s\n", indent, k)
			return dumpBucket(w, b.Bucket(k), indent+"  ")
		}
		_, err := fmt.Fprintf(w, "%s%s = %s\n", indent, printable(k), printable(v))
		return err
	})
}

func printable(p []byte) string {
	if _, text, err := splitHead(nil, nil, p); err == nil && len(text) > 0 && text[0] == '{' {
		return fmt.Sprintf("%x %s", p[:len(p)-len(text)], text)
	}
	if utf8.Valid(p) && len(p) > 0 && p[0] >= ' ' {
		return string(p)
	}
	return fmt.Sprintf("%x", p)
}
