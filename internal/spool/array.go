package spool

import (
	"reflect"
	"unsafe"
)

// Array is a growing array of pointer-free records.
type Array[T any] struct {
	heap []T // while it is small; nil once the region is in use
	file region
	n    int
}

// NewArray returns an empty array that, when it grows, makes a file in dir.
// Nothing is allocated yet. The caller closes it.
func NewArray[T any](dir string) *Array[T] {
	mustBePlain(reflect.TypeFor[T]())
	return &Array[T]{file: region{dir: dir}}
}

// recordSize is the number of bytes of a record.
func (a *Array[T]) recordSize() int {
	var v T
	return int(unsafe.Sizeof(v))
}

// Append adds v and returns its index. After an error the array is as before.
func (a *Array[T]) Append(v T) (int, error) {
	if a.file.mem == nil && (a.n+1)*a.recordSize() <= heapMax {
		a.heap = append(a.heap, v)
		a.n++
		return a.n - 1, nil
	}
	if (a.n+1)*a.recordSize() > len(a.file.mem) {
		if err := a.grow(); err != nil {
			return 0, err
		}
	}
	a.mapped(a.n + 1)[a.n] = v
	a.n++
	return a.n - 1, nil
}

// grow makes room for one more record in the file, and moves the records there
// when they were on the heap.
func (a *Array[T]) grow() error {
	if err := a.file.reserve((a.n + 1) * a.recordSize()); err != nil {
		return err
	}
	if a.heap != nil {
		copy(a.mapped(a.n), a.heap)
		a.heap = nil
	}
	return nil
}

// mapped returns the first n records of the file.
func (a *Array[T]) mapped(n int) []T {
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(a.file.mem))), n)
}

// Len returns the number of records.
func (a *Array[T]) Len() int { return a.n }

// At returns record i, for reading and writing, valid until the next Append or
// Close. It panics when there is no such record.
func (a *Array[T]) At(i int) *T { return &a.Slice()[i] }

// Slice returns all records, for reading, writing and sorting, valid until the
// next Append or Close.
func (a *Array[T]) Slice() []T {
	if a.file.mem == nil {
		return a.heap
	}
	return a.mapped(a.n)
}

// Close gives memory and disk space back and empties the array. A second call
// does nothing.
func (a *Array[T]) Close() error {
	a.heap, a.n = nil, 0
	return a.file.close()
}
