// Package blob keeps bytes that are named by their SHA-256 in plain files.
//
// A *blob* is a manifest or config, named and read whole, or a compressed layer as
// it was received, of any size. A *correction* is what is needed besides the layer
// to make such a blob again. A *body* is the content of one regular file of some
// layer. Bodies of at least [ObjectMin] bytes are *objects*, one file each; smaller
// ones lie back to back, without header or padding and in the order of the tar, in
// a *pack*, one per import: a file of its own costs a hundred times what appending
// 4 KiB costs. Where a body lies is its [Place]; remembering places is the business
// of the caller's index, and a body that no index knows is garbage.
//
//	<root>/blobs/sha256/ab/<hex>        blobs, by the first byte of their digest
//	<root>/blobs/corrections/ab/<hex>   corrections, by the digest of the blob
//	<root>/objects/ab/<hex>             objects; long runs of zeros are holes
//	<root>/packs/<16 hex digits>        packs, by their random PackID
//
// Directories have mode 0700, files 0600. A file gets its name after its
// content is on the disk, and is never changed afterwards, except that
// [Store.PunchPack] turns dead bodies into holes.
//
// # Importing
//
// An [Ingest] takes bodies from any number of goroutines, each with its own
// [BodyWriter], skips those that the index or the ingest itself knows, stages
// the rest in the importer's temporary directory and publishes all of them at
// once. The order in which that becomes durable is fixed in [Ingest.Commit] and
// reviewed as testdata/commit.golden.
//
// Any number of processes may import at once. The caller keeps collectors out
// from before the first question to Known until its record of what uses the
// bodies is in the index: neither a body that Known reported nor one that was
// just published is safe from them before.
//
// # Locks
//
//	Ingest.mu        what is claimed by this ingest, and the end of its pack
//	packCache.mu     pack mappings
//	objectCache.mu   open objects
//
// None is taken while another is held, and none is held across reading or
// writing files, with one exception: Ingest.mu is held while the map of claims
// grows its temporary file.
package blob
