#!/bin/bash
# Builds a small real image out of Debian packages, as an oci-archive:
#
#   mkimage.sh OUT.tar [NAME]
#
# Four layers: busybox-static with hard links to it; the package "mount" with its
# setuid programs; tzdata; and one that deletes, replaces and hides what lies below.
# Needs no root: owners are written by tar. The packages come from the machine's own
# Debian mirror (apt-get download); none of them is in this repository.
set -euo pipefail
umask 022
export LC_ALL=C

out=$(realpath -m "${1:?usage: mkimage.sh OUT.tar [NAME]}")
name=${2:-localhost/layerfs-demo:latest}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/deb" "$work/oci/blobs/sha256"
epoch=1700000000

fetch() {
	local package
	for package in "$@"; do
		if ! (cd "$work/deb" && apt-get -q -o APT::Sandbox::User="$(id -un)" download "$package" >apt.log 2>&1); then
			cat "$work/deb/apt.log" >&2
			echo "mkimage.sh: cannot download $package; run apt-get update as root and look at the network" >&2
			return 1
		fi
	done
}

# unpack PACKAGE DIR
unpack() { dpkg-deb -x "$work/deb/$1"_*.deb "$2"; }

# blob FILE: put a file into the layout, print its digest
blob() {
	local sum
	sum=$(sha256sum <"$1" | cut -d' ' -f1)
	cp "$1" "$work/oci/blobs/sha256/$sum"
	echo "$sum"
}

layers='' diffids='' history=''
# add DIR DESCRIPTION: the tree becomes the next layer
add() {
	local tar=$work/layer.tar sum diffid
	tar --create --file "$tar" --directory "$1" --format=pax --pax-option=delete=atime,delete=ctime \
		--sort=name --mtime="@$epoch" --owner=0 --group=0 --numeric-owner .
	diffid=$(sha256sum <"$tar" | cut -d' ' -f1)
	gzip -n -f "$tar"
	sum=$(blob "$tar.gz")
	layers+=${layers:+,}"{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar+gzip\",\"digest\":\"sha256:$sum\",\"size\":$(stat -c %s "$tar.gz")}"
	diffids+=${diffids:+,}"\"sha256:$diffid\""
	history+=${history:+,}"{\"created\":\"$(date -u -d "@$epoch" +%FT%TZ)\",\"created_by\":\"$2\"}"
	epoch=$((epoch + 60))
}

case $(dpkg --print-architecture) in
	i386) arch=386 ;;
	armhf) arch=arm ;;
	ppc64el) arch=ppc64le ;;
	*) arch=$(dpkg --print-architecture) ;;
esac
fetch busybox-static mount tzdata

base=$work/base
unpack busybox-static "$base"
mkdir -p "$base"/{dev,etc,proc,root,sys,usr/bin} "$base/tmp"
chmod 1777 "$base/tmp"
chmod 0700 "$base/root"
busybox=$(cd "$base" && find . -name busybox -type f -perm -100 | head -n 1)
for applet in sh ls cat echo grep find sed awk; do
	ln "$base/$busybox" "$base/usr/bin/$applet" # one body, one inode, many names
done
[ -e "$base/bin" ] || ln -s usr/bin "$base/bin"
echo 'root:x:0:0:root:/root:/bin/sh' >"$base/etc/passwd"
echo 'Hello from the first layer.' >"$base/etc/motd"
add "$base" 'busybox-static'

unpack mount "$work/mount" # mount and umount are setuid root
if [ -L "$base/bin" ] && [ -d "$work/mount/bin" ]; then
	mkdir -p "$work/mount/usr/bin"
	mv "$work/mount/bin"/* "$work/mount/usr/bin/"
	rmdir "$work/mount/bin"
fi
add "$work/mount" 'mount'

unpack tzdata "$work/tzdata"
add "$work/tzdata" 'tzdata'

top=$work/top
mkdir -p "$top/etc" "$top/usr/share/doc/mount" "$top/usr/share/zoneinfo/Arctic"
echo 'Hello from the topmost layer.' >"$top/etc/motd"         # replaces a file
: >"$top/usr/share/doc/.wh.busybox-static"                    # deletes a tree
: >"$top/usr/share/zoneinfo/Arctic/.wh..wh..opq"              # hides what is below
echo 'Only this is left.' >"$top/usr/share/zoneinfo/Arctic/README"
add "$top" 'whiteouts'

printf '{"created":"%s","architecture":"%s","os":"linux","config":{"Env":["PATH=/usr/bin:/bin"],"Cmd":["/bin/sh"],"Labels":{"org.opencontainers.image.title":"layerfs demo"}},"rootfs":{"type":"layers","diff_ids":[%s]},"history":[%s]}' \
	"$(date -u -d "@$epoch" +%FT%TZ)" "$arch" "$diffids" "$history" >"$work/config.json"
config=$(blob "$work/config.json")
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%d},"layers":[%s]}' \
	"$config" "$(stat -c %s "$work/config.json")" "$layers" >"$work/manifest.json"
manifest=$(blob "$work/manifest.json")
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%d,"annotations":{"org.opencontainers.image.ref.name":"%s"}}]}' \
	"$manifest" "$(stat -c %s "$work/manifest.json")" "$name" >"$work/oci/index.json"
printf '{"imageLayoutVersion":"1.0.0"}' >"$work/oci/oci-layout"
mkdir -p "$(dirname "$out")"
tar --create --file "$out.part" --directory "$work/oci" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner oci-layout index.json blobs
mv "$out.part" "$out"
echo "$out: sha256:$config"
