package fs

import (
	"testing"

	"github.com/layerfs/layerfs/index/tree"
)

// TestMappings wants a bounded number of mapped files, and none of a layer that is let go.
func TestMappings(t *testing.T) {
	_, f := fixture(t)
	node := walkTo(t, f, rootfs+"/usr/bin/big").NodeId
	_, slot, number := splitID(node)
	o, err := f.use(f.snap.Load().layers[slot])
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(maxMapped + 5) { // as if they were many files
		got, ok := f.mapped.bytes(o, node+i<<40, tree.Ino(number), 16, 100_000)
		if !ok || string(got) != big[16:100_016] {
			t.Fatalf("%d: %d bytes, %v", i, len(got), ok)
		}
	}
	if len(f.mapped.list) != maxMapped || len(f.mapped.retired) != 5 {
		t.Errorf("%d files are mapped, %d retired", len(f.mapped.list), len(f.mapped.retired))
	}
	if _, ok := f.mapped.bytes(o, node, tree.Ino(number), 1<<40, 100); ok {
		t.Error("bytes behind the end")
	}
	quiesced := 0
	f.mapped.drop(false, func() { quiesced++ })
	for _, l := range f.snap.Load().layers {
		f.mapped.retire(l)
	}
	f.mapped.drop(false, func() { quiesced++ })
	if quiesced != 2 {
		t.Errorf("unmapped %d times after waiting", quiesced)
	}
	for _, x := range f.mapped.list {
		if _, s, _ := splitID(x.node); s == slot {
			t.Error("a file of the layer is still mapped")
		}
	}
	f.mapped.drop(true, func() {})
	if len(f.mapped.list)+len(f.mapped.retired) != 0 {
		t.Error("something is left")
	}
}
