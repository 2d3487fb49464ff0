// Package tarsplit takes tar streams apart and puts them together again, bit
// for bit.
//
// # Words
//
//   - stream: the bytes of a tar file, uncompressed; any bytes at all.
//   - member: one entry of the tar: its headers, its body, its padding.
//   - body: the data of a member. The caller keeps it and gives it a name, a
//     [Sum]; this package only remembers the name and the size.
//   - stored form: everything else, compressed, with an index, so that the
//     stream can be read again from any offset. See format.go.
//
// # The law
//
//	Join(Split(x)) == x   for every byte stream x
//
// also when x is no tar, ends in the middle, has bytes after its end, repeats
// a path, or was padded with something other than zeros. Bodies are keyed by
// their position in the stream, never by the name of the member.
//
// # Members
//
// [Splitter.Next] gives the headers that archive/tar of the standard library
// gives, and a [FormatError] where archive/tar has an error: v7, ustar, PAX, GNU
// and star headers, long names, base-256 numbers, and sparse files of all four
// kinds. FuzzAgainstArchiveTar is that sentence. Memory is bounded whatever the
// stream says: extension headers and sparse maps end at 1 MiB.
//
// A Splitter and a Writer are for one goroutine; a Reader is safe for many.
package tarsplit
