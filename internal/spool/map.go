package spool

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"reflect"
	"unsafe"
)

// Key is what a [Map] finds values by: a SHA-256.
type Key = [32]byte

// firstSlots is the number of slots of a map that has its first value.
const firstSlots = 64

// slot holds one pair; the zero key marks a free slot.
type slot[V any] struct {
	key   Key
	value V
}

// Map finds pointer-free values by key. It is a hash table with open addressing
// and linear probing, doubled when it is 70 % full; nothing is ever deleted.
//
// The hash mixes the first 16 bytes of the key with random numbers of the map:
// an image cannot be made so that its digests fall into one run of slots.
type Map[V any] struct {
	heap  []slot[V] // while it is small; nil once the region is in use
	file  region
	count int // keys other than the zero key
	shift int // 64 - log2(number of slots); 0: no slots yet
	seed  [2]uint64

	// The zero key cannot be in a slot.
	hasZero bool
	zero    V
}

// NewMap returns an empty map that, when it grows, makes a file in dir. Nothing
// is allocated yet. The caller closes it.
func NewMap[V any](dir string) *Map[V] {
	mustBePlain(reflect.TypeFor[V]())
	return &Map[V]{file: region{dir: dir}, seed: [2]uint64{rand.Uint64(), rand.Uint64()}}
}

// slots returns the table.
func (m *Map[V]) slots() []slot[V] {
	if m.shift == 0 || m.file.mem == nil {
		return m.heap
	}
	return slotsOf[V](m.file.mem, 1<<(64-m.shift))
}

// slotsOf returns n slots at the beginning of mem.
func slotsOf[V any](mem []byte, n int) []slot[V] {
	return unsafe.Slice((*slot[V])(unsafe.Pointer(unsafe.SliceData(mem))), n)
}

// find returns the slot that holds key or would hold it.
// Preconditions: table is not empty and has a free slot; key is not zero.
func (m *Map[V]) find(table []slot[V], shift int, key *Key) *slot[V] {
	hi, lo := bits.Mul64(
		binary.LittleEndian.Uint64(key[:8])^m.seed[0],
		binary.LittleEndian.Uint64(key[8:16])^m.seed[1])
	for i := int((hi ^ lo) >> shift); ; i++ {
		s := &table[i&(len(table)-1)]
		if s.key == *key || s.key == (Key{}) {
			return s
		}
	}
}

// Get returns the value of key and whether there is one.
func (m *Map[V]) Get(key Key) (V, bool) {
	var none V
	if key == (Key{}) {
		return m.zero, m.hasZero
	}
	if m.shift == 0 {
		return none, false
	}
	s := m.find(m.slots(), m.shift, &key)
	if s.key != key {
		return none, false
	}
	return s.value, true
}

// Put gives key the value v. After an error the map is as before.
func (m *Map[V]) Put(key Key, v V) error {
	if key == (Key{}) {
		m.zero, m.hasZero = v, true
		return nil
	}
	if table := m.slots(); m.shift == 0 || (m.count+1)*10 > len(table)*7 {
		if err := m.grow(); err != nil {
			return err
		}
	}
	s := m.find(m.slots(), m.shift, &key)
	if s.key != key {
		s.key = key
		m.count++
	}
	s.value = v
	return nil
}

// grow doubles the table.
func (m *Map[V]) grow() error {
	old := m.slots()
	n := max(firstSlots, 2*len(old))
	shift := 64 - (bits.Len(uint(n)) - 1)
	size := n * int(unsafe.Sizeof(slot[V]{}))
	if m.file.mem == nil && size <= heapMax {
		table := make([]slot[V], n)
		m.rehash(table, shift, old)
		m.heap, m.shift = table, shift
		return nil
	}
	next := region{dir: m.file.dir}
	if err := next.resize(size); err != nil {
		_ = next.close() // the table it was meant for is lost anyway
		return err
	}
	m.rehash(slotsOf[V](next.mem, n), shift, old)
	err := m.file.close()
	m.file, m.heap, m.shift = next, nil, shift
	return err
}

// rehash puts the pairs of old into table.
func (m *Map[V]) rehash(table []slot[V], shift int, old []slot[V]) {
	for i := range old {
		if old[i].key != (Key{}) {
			*m.find(table, shift, &old[i].key) = old[i]
		}
	}
}

// Len returns the number of keys.
func (m *Map[V]) Len() int {
	if m.hasZero {
		return m.count + 1
	}
	return m.count
}

// Each calls fn for every key, in no useful order, until fn returns false. The
// value may be changed through the pointer, which is valid during the call; fn
// must not call Put.
func (m *Map[V]) Each(fn func(key Key, v *V) bool) {
	if m.hasZero && !fn(Key{}, &m.zero) {
		return
	}
	table := m.slots()
	for i := range table {
		if table[i].key != (Key{}) && !fn(table[i].key, &table[i].value) {
			return
		}
	}
}

// Close gives memory and disk space back and empties the map. A second call
// does nothing.
func (m *Map[V]) Close() error {
	m.heap, m.count, m.shift, m.hasZero = nil, 0, 0, false
	return m.file.close()
}
