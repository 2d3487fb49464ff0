package fs

import (
	"archive/tar"
	"strings"
	"testing"
)

// big is large enough to be a file of its own in the store.
var big = strings.Repeat("0123456789abcdef", 20000)

var longName = strings.Repeat("n", 255)

// baseLayer holds one of everything.
func baseLayer(t testing.TB) []byte {
	x := file("etc/x", "xattrs")
	x.PAXRecords = map[string]string{
		"SCHILY.xattr.user.k": "v", "SCHILY.xattr.user.overlay.opaque": "y", "SCHILY.xattr.trusted.overlay.redirect": "/",
		"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
	}
	owned := file("etc/owned", "whose")
	owned.Uid, owned.Gid, owned.Mode = 33, 44, 0o4755
	null := special("dev/null", tar.TypeChar, "")
	null.Devmajor, null.Devminor = 1, 300
	return tarOf(t,
		dirMember("etc"), file("etc/passwd", "root:x:0:0"), file("etc/motd", "welcome"), x, owned, file("etc/empty", ""),
		dirMember("usr"), dirMember("usr/bin"), file("usr/bin/sh", "#!shell"), file("usr/bin/big", big),
		special("usr/bin/sh2", tar.TypeLink, "usr/bin/sh"), special("bin", tar.TypeSymlink, "usr/bin"),
		null, special("run/fifo", tar.TypeFifo, ""), file("odd\xff\n", "odd"), file(longName, "long"),
		dirMember("sub"), dirMember("sub/a"), file("sub/a/b", "hidden"), file("gone", "gone"),
	)
}

// topLayer changes it.
func topLayer(t testing.TB) []byte {
	return tarOf(t,
		file("etc/.wh.motd", ""), file("etc/passwd", "root:x:0:0:changed"), dirMember("sub"), file("sub/.wh..wh..opq", ""), file("sub/new", "new"),
		file(".wh.gone", ""), special("lower", tar.TypeLink, "usr/bin/sh"),
	)
}

// merged is what the two show together: type, mode, owner, links and size or target. Directories lack the latter two.
var merged = map[string]string{
	".":           "drwxr-xr-x 0:0",
	"etc":         "drwxr-xr-x 0:0",
	"etc/passwd":  "-rw-r--r-- 0:0 1 18",
	"etc/x":       "-rw-r--r-- 0:0 1 6",
	"etc/owned":   "urwxr-xr-x 33:44 1 5",
	"etc/empty":   "-rw-r--r-- 0:0 1 0",
	"usr":         "drwxr-xr-x 0:0",
	"usr/bin":     "drwxr-xr-x 0:0",
	"usr/bin/sh":  "-rw-r--r-- 0:0 3 7",
	"usr/bin/sh2": "-rw-r--r-- 0:0 3 7",
	"lower":       "-rw-r--r-- 0:0 3 7",
	"usr/bin/big": "-rw-r--r-- 0:0 1 320000",
	"bin":         "Lrwxrwxrwx 0:0 1 usr/bin",
	"dev":         "drwxr-xr-x 0:0",
	"dev/null":    "Dcrw-r--r-- 0:0 1 1:300",
	"run":         "drwxr-xr-x 0:0",
	"run/fifo":    "prw-r--r-- 0:0 1 0",
	"odd\xff\n":   "-rw-r--r-- 0:0 1 3",
	longName:      "-rw-r--r-- 0:0 1 4",
	"sub":         "drwxr-xr-x 0:0",
	"sub/new":     "-rw-r--r-- 0:0 1 3",
}
