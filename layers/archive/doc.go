// Package archive reads and writes images in files: docker-archives as docker
// before 25 and since 25, podman, skopeo and others write them, OCI archives and
// OCI layout directories, and directories of the dir: transport. What a file is, and how it is compressed, is found out by
// its content.
//
// # Reading
//
// [Open] finds the images; each has a [Source] that hands out its manifest and its
// blobs, nothing is unpacked to disk. Only what cannot be read at any position, a
// stream or an archive that is compressed as a whole, is copied to a temporary file
// first.
//
// Everything in an archive is taken for hostile:
//
//   - A member's name is a key to look it up and never becomes a path. Files of a
//     layout directory are opened by digest, links are not followed.
//   - Documents have at most 8 MiB, indexes nest at most 8 deep, and the number of
//     members, of descriptors and of links in a row is limited. Members that can play
//     no part in an image are not remembered, so memory does not grow with an archive.
//   - A manifest, index or config that is parsed here matches its digest and size. A
//     blob is checked for its size while it is read; who reads it checks the digest.
//
// # Writing
//
// [Write] and [WriteDir] produce the same bytes for the same images. Docker-archives
// hold each layer once, uncompressed. In OCI formats a layer that came uncompressed
// stays so; any other is compressed with gzip again, and the manifest names the new
// digest.
package archive
