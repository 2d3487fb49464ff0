package layers

import (
	"context"
	"os"
	"path/filepath"

	"github.com/layerfs/layerfs/index"
)

// Info is a summary of the store.
type Info struct {
	Root     string `json:"root"`
	ReadOnly bool   `json:"read_only"`
	Format   Format `json:"format"`
	Images   int    `json:"images"`
	Names    int    `json:"names"`
	Layers   int    `json:"layers"`
	// Entries, Bodies and the bytes below are sums over the layers, as recorded.
	Entries   int64 `json:"entries"`
	TarBytes  int64 `json:"tar_bytes"`  // the uncompressed layers as tars
	MetaBytes int64 `json:"meta_bytes"` // trees and split metadata
	// File contents, each counted once, as the index has them.
	IndexBytes  int64 `json:"index_bytes"` // of the index itself
	Objects     int64 `json:"objects"`     // large files
	ObjectBytes int64 `json:"object_bytes"`
	Packs       int64 `json:"packs"`
	PackedFiles int64 `json:"packed_files"` // small files
	PackBytes   int64 `json:"pack_bytes"`
	BlobBytes   int64 `json:"blob_bytes"` // manifests, configs
	Sizes       Sizes `json:"sizes"`

	Forms FormInfo `json:"forms"`
	// Additional are the additional stores; the figures above are without them.
	Additional []AdditionalInfo `json:"additional"`
}

// FormInfo is a summary of the compressed forms that layers came in.
type FormInfo struct {
	Count int   `json:"count"`
	Bytes int64 `json:"bytes"` // of all forms together
	// Kept as they came, and the space of that.
	Kept      int   `json:"kept"`
	KeptBytes int64 `json:"kept_bytes"`
	// Corrected are made anew when they are wanted, from their layer and a correction.
	Corrected       int   `json:"corrected"`
	CorrectedBytes  int64 `json:"corrected_bytes"`  // that they have
	CorrectionBytes int64 `json:"correction_bytes"` // that they take
	// Gone were not kept.
	Gone      int   `json:"gone"`
	GoneBytes int64 `json:"gone_bytes"`
}

func (i *FormInfo) add(f index.Form) {
	i.Count++
	i.Bytes += f.Size
	switch f.How {
	case index.FormKept:
		i.Kept++
		i.KeptBytes += f.Stored
	case index.FormCorrected:
		i.Corrected++
		i.CorrectedBytes += f.Size
		i.CorrectionBytes += f.Stored
	case index.FormGone:
		i.Gone++
		i.GoneBytes += f.Size
	}
}

// Info counts what the store holds, and tells about its additional stores.
func (s *Store) Info(ctx context.Context) (*Info, error) {
	out, err := s.OwnInfo(ctx)
	if err == nil {
		out.Additional = s.Additional(ctx)
	}
	return out, err
}

// OwnInfo counts what the store itself holds.
func (s *Store) OwnInfo(ctx context.Context) (*Info, error) {
	out := &Info{Root: s.root, ReadOnly: s.readOnly}
	var err error
	if out.Format, err = readFormat(s.root); err != nil {
		return nil, s.openError(err)
	}
	if err := s.view(ctx, out.addRecords); err != nil {
		return nil, err
	}
	if st, err := os.Stat(s.index.Path()); err == nil {
		out.IndexBytes = st.Size()
	}
	packs, err := os.ReadDir(filepath.Join(s.root, "packs"))
	out.Packs = int64(len(packs))
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (i *Info) addRecords(tx *index.Tx) error {
	err := tx.EachHead(index.HeadImages, func(_ []byte, img index.Head) error {
		i.Images++
		i.BlobBytes += img.Size + img.ManifestSize
		return nil
	})
	if err != nil {
		return err
	}
	if err := tx.EachHead(index.HeadNames, func([]byte, index.Head) error { i.Names++; return nil }); err != nil {
		return err
	}
	err = tx.EachForm(func(_ index.Sum, f index.Form) error { i.Forms.add(f); return nil })
	if err != nil {
		return err
	}
	return i.addSizes(tx)
}
