package mounttest_test

import (
	"archive/tar"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/layerfs/layerfs/internal/testenv"
)

// synthetic are images, each about one thing, that overlayfs over GNU tar can
// show.
var synthetic = []struct {
	name   string
	layers func() []*tarball
}{
	{"whiteouts", func() []*tarball {
		return []*tarball{
			newTar().dir(".", 0o750).dir("a", 0o755).file("a/1", "1").file("a/2", "2").dir("a/sub", 0o700).file("a/sub/x", "x").
				file("gone", "g").symlink("ln", "gone").file("again", "old").dir("d", 0o755).file("d/f", "1"),
			newTar().file(".wh.gone", "").file("a/.wh.2", "").file("a/.wh.sub", "").file(".wh.ln", "").file(".wh.again", "").
				file(".wh.never-was", "").file(".wh.d", ""),
			newTar().file("again", "new").dir("a/sub", 0o711).file("a/sub/y", "y").dir("d", 0o700),
			newTar().file("a/.wh.1", "").file("a/1", "same layer").dir("d", 0o700).file(".wh.d", "").file("d/new", "n"),
		}
	}},
	{"opaque", func() []*tarball {
		return []*tarball{
			newTar().dir("a", 0o750).file("a/1", "1").dir("a/b", 0o755).file("a/b/2", "2").dir("i", 0o2755).file("i/old", "1"),
			newTar().dir("a", 0o700).file("a/.wh..wh..opq", "").file("a/3", "3"),
			newTar().file("a/4", "4").dir("a/b", 0o711).file("a/b/5", "5"),
			newTar().file("a/b/.wh..wh..opq", "").file("i/new", "2").file("i/.wh..wh..opq", "").file("none/.wh..wh..opq", ""),
			newTar().dir("e", 0o755).file("e/.wh..wh..opq", "").file(".wh..wh.plnk", "").file(".wh..wh.aufs", ""),
		}
	}},
	{"opaque root", func() []*tarball {
		return []*tarball{
			newTar().dir(".", 0o701).file("a", "1").dir("d", 0o755).file("d/x", ""),
			newTar().file(".wh..wh..opq", "").file("b", "2"),
		}
	}},
	{"file and directory", func() []*tarball {
		return []*tarball{
			newTar().dir("x", 0o755).file("x/in", "1").file("y", "file").symlink("z", "x").dir("w", 0o755).file("w/in", ""),
			newTar().file("x", "now a file").dir("y", 0o711).file("y/in", "2").dir("z", 0o700).file("z/q", "").symlink("w", "y"),
			newTar().dir("x", 0o700).file("x/other", "3").file("y", "file again").file("z", "").dir("w", 0o755),
			newTar().file("x/third", "4").dir("y/deep/er", 0o755),
		}
	}},
	{"hard links", func() []*tarball {
		return []*tarball{
			newTar().dir("d", 0o755).file("d/a", "body").link("d/b", "d/a").link("c", "d/b").link("e", "./d/a").
				symlink("s", "c").link("s2", "s").add(tar.Header{Name: "p", Typeflag: tar.TypeFifo}, "").link("p2", "p"),
			newTar().file("d/.wh.a", "").file("f", "two").link("g", "f"),
			newTar().file("c", "replaced").link("h", "c"),
		}
	}},
	{"duplicates", func() []*tarball {
		return []*tarball{
			newTar().file("a", "first").file("a", "second, longer").dir("d", 0o700).file("d/x", "1").dir("d", 0o2755).
				file("b", "old").link("b2", "b").file("b", "new").symlink("s", "a").file("s", "file").file("t", "").symlink("t", "d").
				file("./a", "third").file("e", "").dir("e", 0o755).file("e/in", "").dir("empty", 0o755).file("empty", "now a file"),
		}
	}},
	{"implied directories", func() []*tarball {
		return []*tarball{
			newTar().dir(".", 0o711).dir("a", 0o2770).file("a/b/c/d", "1"),
			newTar().file("a/e", "2").file("a/b/f", "3").file("n/o/p", ""),
			newTar().dir("a/b", 0o500).file(".wh.n", ""),
			newTar().file("a/b/c/g", "").file("n/o/q", "").file("a/b/.wh.f", ""),
		}
	}},
	{"parents that are symlinks", func() []*tarball {
		return []*tarball{
			newTar().dir("usr", 0o755).dir("usr/lib", 0o755).symlink("lib", "usr/lib").file("lib/x", "1").dir("usr/lib/sub", 0o755),
			newTar().file("usr/lib/y", "2"),
		}
	}},
	{"xattrs", func() []*tarball {
		// Revision 2, effective, cap_net_raw.
		capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
		return []*tarball{
			newTar().
				xattrs(tar.Header{Name: "ping", Typeflag: tar.TypeReg, Mode: 0o755}, "x", map[string]string{"security.capability": capability}).
				xattrs(tar.Header{Name: "u", Typeflag: tar.TypeReg}, "x", map[string]string{
					"user.a": "1", "user.empty": "", "user.bin": "\xff\xfe\n=", "trusted.t": "secret", "user.long": strings.Repeat("v", 1500),
				}).
				xattrs(tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755}, "", map[string]string{"user.dir": "d", "security.x": "y"}).
				xattrs(tar.Header{Name: "acl", Typeflag: tar.TypeReg}, "x", map[string]string{"system.posix_acl_access": acl(6, 4, 4)}).
				xattrs(tar.Header{Name: "o/", Typeflag: tar.TypeDir, Mode: 0o755}, "", map[string]string{"trusted.overlay.opaque": "y", "user.overlay.redirect": "/d"}).
				symlink("s", "u").link("u2", "u"),
			newTar().file("d/f", "").dir("o", 0o711),
		}
	}},
	{"devices", func() []*tarball {
		return []*tarball{
			newTar().add(tar.Header{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o666}, "").
				add(tar.Header{Name: "big", Typeflag: tar.TypeChar, Devmajor: 4000, Devminor: 1000000, Mode: 0o600}, "").
				add(tar.Header{Name: "disk", Typeflag: tar.TypeBlock, Devmajor: 8, Devminor: 1, Mode: 0o660, Gid: 6}, "").
				add(tar.Header{Name: "pipe", Typeflag: tar.TypeFifo, Mode: 0o622}, ""),
			newTar().add(tar.Header{Name: "disk", Typeflag: tar.TypeFifo}, "").file("null", "a file"),
		}
	}},
	{"names", func() []*tarball {
		b := newTar()
		gnu := func(name string) {
			b.add(tar.Header{Name: name, Typeflag: tar.TypeReg, Format: tar.FormatGNU, ModTime: time.Unix(1, 0)}, name)
		}
		for _, name := range []string{
			"\xff\xfe", "latin-\xe9", "new\nline", "tab\t", " ", "  lead", "trail ", "-rf", "*", "back\\slash", "quo\"te", "a:b", "a@b", "..a", "...",
			".wh", "wh.x", "\x01\x7f", "日本語", "e\u0301", "\u00e9", "%2e", "$HOME", "#",
			strings.Repeat("n", 255), strings.Repeat("\xe9", 255), strings.Repeat("日", 85),
		} {
			gnu(name)
			gnu("dir/" + name)
		}
		return []*tarball{b, newTar().file(".wh.\xff\xfe", "").file(".wh."+strings.Repeat("w", 251), "").file(".wh.a:b", "")}
	}},
	{"times and owners", func() []*tarball {
		b := newTar()
		for i, sec := range []int64{-1, -86400 * 365 * 60, 0, 1, 1 << 31, 1<<32 + 5, 9999999999} {
			b.add(tar.Header{Name: fmt.Sprintf("t%d", i), Typeflag: tar.TypeReg, ModTime: time.Unix(sec, 1)}, "")
			b.add(tar.Header{Name: fmt.Sprintf("l%d", i), Typeflag: tar.TypeSymlink, Linkname: "x", Mode: 0o644, ModTime: time.Unix(sec, 999999999)}, "")
		}
		for i, id := range []int{65534, 65535, 1 << 21, 1<<31 - 2, 1<<31 + 5, 1<<32 - 2} {
			b.add(tar.Header{Name: fmt.Sprintf("u%d", i), Typeflag: tar.TypeReg, Uid: id, Gid: id}, "")
		}
		for _, mode := range []int64{0o4755, 0o2755, 0o1777, 0o7777, 0o001, 0o400} {
			b.add(tar.Header{Name: fmt.Sprintf("m%o", mode), Typeflag: tar.TypeReg, Mode: mode}, "x")
			b.dir(fmt.Sprintf("d%o", mode), mode)
		}
		return []*tarball{b}
	}},
	{"150 layers", func() []*tarball {
		var list []*tarball
		for i := range 150 {
			b := newTar().file(fmt.Sprintf("own/%d", i), fmt.Sprint(i)).file("all", fmt.Sprint(i)).dir(fmt.Sprintf("d%d", i%7), int64(0o700+i%64)).
				file(fmt.Sprintf("d%d/f%d", i%7, i%11), fmt.Sprint(i))
			if i > 10 && i%3 == 0 {
				b.file(fmt.Sprintf("own/.wh.%d", i-10), "")
			}
			if i%40 == 39 {
				b.file(fmt.Sprintf("d%d/.wh..wh..opq", i%7), "")
			}
			list = append(list, b)
		}
		return list
	}},
	{"empty layers", func() []*tarball {
		return []*tarball{newTar(), newTar().file("a", "1"), newTar().dir(".", 0o700)}
	}},
	{"bodies", func() []*tarball {
		b := newTar()
		for _, n := range []int{0, 1, 511, 512, 513, 4095, 4096, 4097, 128<<10 - 1, 128 << 10, 128<<10 + 1, 1 << 20, 4 << 20, 4<<20 + 1, 9<<20 + 7} {
			b.file(fmt.Sprintf("n%d", n), noise(n, n)).file(fmt.Sprintf("copy/n%d", n), noise(n, n)).file(fmt.Sprintf("zero%d", n), strings.Repeat("\x00", n))
		}
		return []*tarball{b, newTar().file("again", noise(4<<20, 4<<20))}
	}},
}

// noise is n bytes that depend on the seed and do not compress.
func noise(seed, n int) string {
	out := make([]byte, 0, n+8)
	x := uint64(seed)*0x9e3779b97f4a7c15 + 1
	for len(out) < n {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		out = binary.LittleEndian.AppendUint64(out, x)
	}
	return string(out[:n])
}

// acl is an access list with a named user besides the usual three.
func acl(user, group, other uint16) string {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, user, 1<<32 - 1}, {2, 4, 1000}, {4, group, 1<<32 - 1}, {16, group, 1<<32 - 1}, {32, other, 1<<32 - 1}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return string(b)
}

// TestSynthetic compares images made for one purpose with kernel overlayfs.
func TestSynthetic(t *testing.T) {
	testenv.Require(t, "root", "fuse", "overlayfs")
	for _, c := range synthetic {
		t.Run(c.name, func(t *testing.T) {
			archive, img := imageOf(t, layersOf(c.layers()...)...)
			s := newStore(t, nil)
			name := s.load("-i", archive)
			compareImage(t, s, s.mount(), name, newOracle(t, img))
			s.checkClean()
		})
	}
}
