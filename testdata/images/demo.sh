#!/bin/bash
# make demo: installs what is missing, builds an image from Debian packages, loads
# it into a store below ./demo, mounts the store and shows its tree.
# make demo-clean (--clean): unmounts and removes it.
set -euo pipefail
cd "$(dirname "$0")/../.."
layerfs=bin/layerfs
demo=$PWD/demo
export LAYERFS_ROOT=$demo/store LAYERFS_RUNROOT=$demo/run
unset LAYERFS_CONF

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

show() {
	printf '\n$ %s\n' "$*"
	bash -c "$*"
}

clean() {
	[ -d "$demo" ] || return 0
	if [ -x $layerfs ]; then
		$layerfs umount --all
	elif grep -qF " $demo/mnt " /proc/self/mountinfo; then
		fusermount3 -u "$demo/mnt"
	fi
	rm -rf "$demo"
	echo "removed $demo"
}

# as_root COMMAND...: runs it as root, or says what root has to do.
as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		echo "demo: neither root nor sudo is here; as root run: $*" >&2
		exit 1
	fi
}

# Programs that the demo uses, and the Debian packages that have them.
install_missing() {
	local -A package=([fusermount3]=fuse3 [dpkg-deb]=dpkg [tar]=tar [gzip]=gzip [sha256sum]=coreutils [find]=findutils)
	local missing=() program lists
	if ! command -v apt-get >/dev/null; then
		echo "demo: this is no Debian (no apt-get), where the demo image's packages come from; load an image of your own with $layerfs load" >&2
		exit 1
	fi
	for program in "${!package[@]}"; do
		command -v "$program" >/dev/null || missing+=("${package[$program]}")
	done
	# Without lists of packages nothing can be downloaded either.
	lists=$(find /var/lib/apt/lists -maxdepth 1 -name '*Packages*' 2>/dev/null | head -n 1 || true)
	if [ ${#missing[@]} -gt 0 ] || [ -z "$lists" ]; then
		say "Getting Debian's list of packages"
		as_root apt-get update -q
	fi
	if [ ${#missing[@]} -gt 0 ]; then
		say "Installing ${missing[*]}"
		as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
	fi
}

# The device that mounts need. Where udev runs it is there, and open to everybody.
open_device() {
	[ -c /dev/fuse ] || as_root modprobe fuse
	if ! [ -r /dev/fuse ] || ! [ -w /dev/fuse ]; then
		as_root chmod 0666 /dev/fuse
	fi
}

if [ "${1:-}" = --clean ]; then
	clean
	exit
fi

install_missing
open_device
mkdir -p "$demo/mnt"
if [ ! -e "$demo/image.tar" ]; then
	say "Building an image from Debian packages"
	testdata/images/mkimage.sh "$demo/image.tar" localhost/layerfs-demo:latest
fi

say "Loading it"
show $layerfs load -i demo/image.tar
show $layerfs images
show $layerfs history localhost/layerfs-demo

say "Mounting the store"
if $layerfs mounts --format '{{.Mountpoint}}' | grep -qxF "$demo/mnt"; then
	echo "it is mounted already"
else
	show $layerfs mount demo/mnt
fi
image=demo/mnt/images/localhost/layerfs-demo@latest
show ls -l $image $image/layers
show "find $image/rootfs -maxdepth 2 | sort | head -n 40"
show "cat $image/rootfs/etc/motd"
show "stat -c '%A %h links, inode %i: %n' $image/rootfs/bin/busybox $image/rootfs/usr/bin/sh $image/rootfs/bin/mount"
show "for tar in $image/layers/*/layer.tar; do sha256sum \$tar; done"

say "Go on"
cat <<END
  export LAYERFS_ROOT=$demo/store LAYERFS_RUNROOT=$demo/run
  ls demo/mnt/images demo/mnt/layers/sha256
  find $image/rootfs -perm -4000            # the setuid programs of the layer "mount"
  $layerfs inspect localhost/layerfs-demo
  $layerfs load -i ANOTHER.tar              # appears in the mount at once
  $layerfs --help

Stop with: make demo-clean
END
