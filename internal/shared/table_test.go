package shared

import (
	"encoding/binary"
	"math/rand"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// again opens the table as another process would.
func again(t *testing.T, table *Table, size int) *Table {
	t.Helper()
	fd, err := unix.FcntlInt(table.File().Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	out, err := Open(os.NewFile(uintptr(fd), "again"), size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	return out
}

func TestTable(t *testing.T) {
	const size = 64
	table, err := New("test", size)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	rnd := rand.New(rand.NewSource(1))
	want := map[uint32]uint64{}
	for n := uint64(1); n < 30000; n++ {
		if len(want) > 0 && rnd.Intn(3) == 0 {
			for i := range want {
				table.Free(i)
				delete(want, i)
				break
			}
			continue
		}
		i, rec := table.Alloc()
		if _, taken := want[i]; taken || i == None || binary.NativeEndian.Uint64(rec[8:]) != 0 {
			t.Fatalf("record %d was given out twice, or is not empty", i)
		}
		binary.NativeEndian.PutUint64(rec[8:], n)
		binary.NativeEndian.PutUint64(rec, n)
		want[i] = n
	}
	for _, table := range []*Table{table, again(t, table, size)} {
		got := map[uint32]uint64{}
		table.Each(func(i uint32, rec []byte) { got[i] = binary.NativeEndian.Uint64(rec[8:]) })
		if len(got) != len(want) || table.Len() != len(want) {
			t.Fatalf("%d records, Len %d, want %d", len(got), table.Len(), len(want))
		}
		for i, n := range want {
			if got[i] != n || binary.NativeEndian.Uint64(table.At(i)) != n {
				t.Errorf("record %d: %d, want %d", i, got[i], n)
			}
		}
	}
}

// What another process has opened has the free records of the first one.
func TestTableGoesOn(t *testing.T) {
	table, err := New("test", 16)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	for range 100 {
		_, rec := table.Alloc()
		rec[0] = 1
	}
	table.Free(50)
	second := again(t, table, 16)
	seen := map[uint32]bool{}
	second.Each(func(i uint32, _ []byte) { seen[i] = true })
	for range 20000 {
		i, rec := second.Alloc()
		if seen[i] {
			t.Fatalf("record %d is in use", i)
		}
		seen[i], rec[0] = true, 1
	}
}

// Records that were given up give their memory back.
func TestTableShrinks(t *testing.T) {
	table, err := New("test", 64)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	var all []uint32
	for range 100000 {
		i, rec := table.Alloc()
		rec[0] = 1
		all = append(all, i)
	}
	blocks := func() int64 {
		var st unix.Stat_t
		if err := unix.Fstat(int(table.File().Fd()), &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks * 512
	}
	full := blocks()
	for _, i := range all {
		table.Free(i)
	}
	if got := blocks(); got > full/10 {
		t.Errorf("%d bytes of %d are left", got, full)
	}
}
