package tree

import (
	"bytes"
	"testing"
)

func TestSmoke(t *testing.T) {
	b := NewBuilder(t.TempDir())
	defer b.Close()
	m := Meta{Mode: 0o644, UID: 1, GID: 2, MtimeSec: 3, MtimeNsec: 4, Xattrs: []Xattr{{"user.a", []byte("x")}}}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(b.File("a/b/c", m, 5, Sum{1}, 5, nil))
	must(b.Symlink("s", "a/b", m))
	must(b.File("s/d", m, 0, Sum{}, 0, nil))
	must(b.Link("l", "s/c"))
	must(b.Link("ll", "s/zz"))
	must(b.Whiteout("a/b/w"))
	var buf bytes.Buffer
	st, err := b.Finish(&buf, nil)
	must(err)
	t.Logf("%+v %d", st, buf.Len())
	tr, err := parse(buf.Bytes())
	must(err)
	must(tr.Verify())
	for i := range tr.Names() {
		d, err := tr.Dirent(i)
		must(err)
		t.Logf("%+v %s", d, d.Name)
	}
	d, ok, err := tr.Lookup(0, []byte("l"))
	t.Log(d, ok, err)
	a, err := tr.Attr(d.Ino)
	t.Logf("%+v %v", a, err)
}
