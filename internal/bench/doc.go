// Bench compares layerfs with the programs that do the same work, in one run, and
// prints ratios:
//
//	make bench BENCHFLAGS='-images DIR'
//	make bench BENCHFLAGS='-images DIR -n 3 -markdown docs/benchmarks.md'
//	go run ./internal/bench [-images DIR] [-only REGEX] [-n N] [-work DIR] [-layerfs FILE]
//
// Each row alternates between the sides, so that what else the machine does hits all
// of them, and shows medians of N runs (loads: 3/5 of N), their ratio, the spread of
// each side (half of the distance between best and worst, as a part of the median),
// the target and whether it was met. Peers that are not installed and rows that need
// root are left out, with the reason. With -markdown the tables go into a document
// too. Rows of ordinary users are run by root, as the user that -user names.
//
// The peers: tar (GNU tar -xzf of the layers, then sync), podman load into a
// throw-away root, the floor of gzip -dc | sha256sum, skopeo copy, umoci unpack, ctr
// images import with a containerd of its own, ostree commit; kernel overlayfs and
// fuse-overlayfs over layers that GNU tar unpacked; ext4 (or whatever holds the work
// directory); cp, pigz and zstd; podman pull and a docker-registry on loopback.
//
// Images: DIR (or LAYERFS_BENCH_IMAGES) holds NAME.oci.tar, an oci-archive with
// gzip layers, for the names debpy (a Debian with Python and a compiler, 911 MB),
// nodeapp (90,000 entries below node_modules), layers100 (100 layers), and ded20.oci,
// a layout with 20 images that differ by 3 %. buildah makes such images from
// Debian packages; any other image under one of these names will do. Without DIR
// an image of 300 MB with 20,000 files, and one of 100 layers, are made here.
//
// What the words mean: the first walk is on a fresh mount with the host's page
// cache warm, the second one after it. A disk-cold read has the backing file
// dropped from the page cache before.
package main
