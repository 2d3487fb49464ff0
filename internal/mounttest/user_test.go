package mounttest_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/layerfs/layerfs/internal/testenv"
	"github.com/layerfs/layerfs/internal/treetest"
)

// TestOracleAsUser loads and mounts as an ordinary user and compares all that
// this user can see with what root sees through overlayfs. Owners are those of
// the idmap: see TestOwners.
func TestOracleAsUser(t *testing.T) {
	testenv.Require(t, "root", "fuse", "overlayfs", "fusermount3")
	account := testenv.User(t)
	for _, name := range archives(t) {
		images, err := treetest.ReadArchive(intact(t, name), t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if len(images) > 1 {
			continue // TestOracle has them; here one image says it all
		}
		want := newOracle(t, images[0])
		for _, idmap := range []string{"none", "squash", "auto"} {
			t.Run(filepath.Base(name)+"/"+idmap, func(t *testing.T) {
				s := newStore(t, &account)
				loaded := s.load("-i", readable(t, name, account))
				mnt := s.mount("--idmap", idmap)
				got := s.take(filepath.Join(imageDir(mnt, loaded), "rootfs"))
				compareAsUser(t, want.merged, got, idmap)
				for _, id := range want.image.DiffIDs {
					if d := s.userDigest(filepath.Join(mnt, "layers/sha256", id, "layer.tar")); d != id {
						t.Errorf("layer.tar of %s has the digest %s", id, d)
					}
				}
			})
		}
	}
}

// compareAsUser leaves out owners, and what only root may read.
func compareAsUser(t *testing.T, want, got *treetest.Snapshot, idmap string) {
	t.Helper()
	hidden := 0
	for _, e := range got.Entries {
		if e.Unreadable {
			hidden++
		}
	}
	if idmap == "squash" && hidden*20 > len(got.Entries) {
		t.Errorf("%d of %d paths cannot be read although all belong to the user", hidden, len(got.Entries))
	}
	report(t, idmap, treetest.Diff(want, got, &treetest.Options{
		Owners: true,
		Entry: func(_ string, want, got *treetest.Entry) {
			if got.Unreadable { // user attributes of such files cannot be read either
				want.Xattrs, got.Xattrs = nil, nil
			}
			for _, e := range []*treetest.Entry{want, got} {
				for name := range e.Xattrs {
					if len(name) > 8 && name[:8] == "trusted." {
						delete(e.Xattrs, name)
					}
				}
			}
		},
	}))
}

// readable gives the user a copy of an archive that it may not reach.
func readable(t *testing.T, name string, account testenv.Account) string {
	t.Helper()
	err := treetest.AsUser(account.UID, account.GID, func() error {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		return f.Close()
	})
	if err == nil {
		return name
	}
	dir := account.TempDir(t)
	out := filepath.Join(dir, filepath.Base(name))
	copyTree(t, name, out)
	return out
}

func copyTree(t testing.TB, from, to string) {
	t.Helper()
	shell(t, 0, "cp -rL \"$1\" \"$2\" && chmod -R u+w,a+rX \"$2\"", from, to)
}

// userDigest is fileDigest as the store's user.
func (s *store) userDigest(name string) (digest string) {
	s.t.Helper()
	err := treetest.AsUser(s.account.UID, s.account.GID, func() error {
		digest = fileDigest(s.t, name)
		return nil
	})
	if err != nil {
		s.t.Error(err)
	}
	return digest
}

// TestOwners checks the owners that each idmap gives.
func TestOwners(t *testing.T) {
	testenv.Require(t, "root", "fuse", "fusermount3")
	account := testenv.User(t)
	layer := newTar().dir(".", 0o755).file("f", "1")
	archive, _ := imageOf(t, layersOf(layer)...)
	uid, gid := uint32(account.UID), uint32(account.GID)
	type ids struct{ dirUID, dirGID, fileUID, fileGID uint32 } // image: directory 3:4, file 1:2
	for _, c := range []struct {
		idmap string
		user  bool
		want  ids
	}{
		{"none", false, ids{3, 4, 1, 2}},
		{"0:500:10", false, ids{503, 504, 501, 502}},
		{"1:9:1,2:700:9", false, ids{701, 702, 9, 700}},
		{"squash", true, ids{uid, gid, uid, gid}},
		{"none", true, ids{3, 4, 1, 2}},
	} {
		who := map[bool]*testenv.Account{true: &account}[c.user]
		s := newStore(t, who)
		name := archive
		if c.user {
			name = readable(t, archive, account)
		}
		loaded := s.load("-i", name)
		snap := s.take(filepath.Join(imageDir(s.mount("--idmap", c.idmap), loaded), "rootfs"))
		d, f := snap.Entries["."], snap.Entries["f"]
		if got := (ids{d.UID, d.GID, f.UID, f.GID}); got != c.want {
			t.Errorf("idmap %s, user %v: got %v, want %v", c.idmap, c.user, got, c.want)
		}
	}
}

// TestOtherUsers: root's mounts are for all, an ordinary user's are private.
func TestOtherUsers(t *testing.T) {
	testenv.Require(t, "root", "fuse", "fusermount3")
	account := testenv.User(t)
	archive, _ := imageOf(t, layersOf(newTar().dir(".", 0o755).file("f", "1"))...)
	s := newStore(t, nil)
	name := s.load("-i", archive)
	mnt := s.mount()
	if err := os.Chmod(filepath.Dir(mnt), 0o755); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(imageDir(mnt, name), "rootfs")
	err := treetest.AsUser(account.UID, account.GID, func() error {
		_, err := os.ReadFile(filepath.Join(dir, "f"))
		return err
	})
	if err != nil {
		t.Errorf("a user in root's mount: %v", err)
	}
	mnt = s.mount("--allow-other=false")
	if err := os.Chmod(filepath.Dir(mnt), 0o755); err != nil {
		t.Fatal(err)
	}
	private := filepath.Join(imageDir(mnt, name), "rootfs")
	err = treetest.AsUser(account.UID, account.GID, func() error {
		_, err := os.Stat(private)
		return err
	})
	if !os.IsPermission(err) {
		t.Errorf("a user in root's private mount: got %v, want a refusal", err)
	}
}
