package index

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// fill makes an index with records of all kinds, some of them changed and removed
// again.
func fill(t *testing.T, db *DB) {
	t.Helper()
	mustUpdate(t, db, sample)
	for i := range 40 {
		mustUpdate(t, db, func(tx *Tx) error {
			id := digest.FromString(fmt.Sprint(i))
			slot, err := tx.NextViewSlot()
			return errors.Join(err,
				tx.PutImage(Image{ID: id, Slot: slot, Config: descriptorOf(id), Layers: []digest.Digest{id}, Loaded: epoch}),
				tx.PutName(Name{Name: fmt.Sprintf("docker.io/library/n%d:1", i), Image: id, Manifest: descriptorOf(id), Slot: slot, Created: epoch}),
				tx.PutLayer(Layer{DiffID: id, Slot: slot, Created: epoch}),
				tx.PutContainer(Container{ID: id.Encoded(), Names: []string{fmt.Sprint("c", i)}, Image: id, Created: epoch}),
				tx.PutData(Owner{KindImage, id.Encoded()}, []byte{0, byte(i), 255}, Data{Digest: id, Size: 3, Stored: epoch}))
		})
	}
	mustUpdate(t, db, func(tx *Tx) error {
		id := digest.FromString("3")
		return errors.Join(tx.DeleteName("docker.io/library/n3:1"), tx.DeleteImage(id), tx.DeleteContainer(id.Encoded()))
	})
}

// records is the dump without bodies.
func records(t *testing.T, db *DB) string {
	t.Helper()
	text := dump(t, db)
	i := strings.Index(text, "  bodies\n")
	j := strings.Index(text, "  container.names\n")
	if i < 0 || j < i {
		t.Fatalf("a dump that cannot be cut:\n%s", text)
	}
	out := text[:i] + text[j:]
	return strings.Join(strings.FieldsFunc(out, func(r rune) bool { return r == '\n' }), "\n")
}

func descriptorOf(d digest.Digest) ocispec.Descriptor { return ocispec.Descriptor{Digest: d, Size: 10} }

func firstDifference(got, want string) string {
	a, b := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("line %d: %.300q, want %.300q", i, a[i], b[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(a), len(b))
}

func noBodies(_ *Rebuilt, _ func(func(*Tx) error) error) error { return nil }

func wantSound(t *testing.T, db *DB) {
	t.Helper()
	problems, err := db.Verify(t.Context())
	for _, p := range append(problems, err) {
		if p != nil {
			t.Error(p)
		}
	}
}

// TestRebuild takes index.db away and gets every record back.
func TestRebuild(t *testing.T) {
	db := open(t)
	fill(t, db)
	wantSound(t, db)
	want := withoutMeta(records(t, db))
	for what, damage := range map[string]func() error{
		"removed":   func() error { return os.Remove(db.Path()) },
		"truncated": func() error { return os.Truncate(db.Path(), 5000) },
		"empty":     func() error { return os.Truncate(db.Path(), 0) },
		"zeroed":    func() error { return os.WriteFile(db.Path(), make([]byte, 64<<10), 0o600) },
		"text":      func() error { return os.WriteFile(db.Path(), []byte(strings.Repeat("nonsense\n", 5000)), 0o600) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		if problems, err := db.Verify(t.Context()); err != nil || len(problems) == 0 {
			t.Errorf("%s: not found: %v", what, err)
		}
		err := db.Update(t.Context(), "test", func(tx *Tx) error { return tx.PutLayer(Layer{DiffID: digest.FromString("x")}) })
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "check --repair") {
			t.Errorf("%s: a change went through: %v", what, err)
		}
		aside := filepath.Join(t.TempDir(), "aside")
		r, err := db.Rebuild(t.Context(), aside, noBodies)
		if err != nil || !r.Whole || r.Lost != 0 {
			t.Fatalf("%s: %+v, %v", what, r, err)
		}
		if got := withoutMeta(records(t, db)); got != want {
			t.Errorf("%s: the records are not what they were: %s", what, firstDifference(got, want))
		}
		if _, err := os.Stat(aside); err != nil && what != "removed" {
			t.Errorf("%s: aside: %v", what, err)
		}
		wantSound(t, db)
		mustUpdate(t, db, func(tx *Tx) error {
			if slot, err := tx.NextViewSlot(); err != nil || slot < 40 || slot > 100 {
				t.Errorf("%s: slot %d, %v", what, slot, err)
			}
			return nil
		})
	}
}

// withoutMeta leaves out the counters, which go on.
func withoutMeta(text string) string {
	var out []string
	for _, line := range strings.Split(text, "\n") {
		if !strings.HasPrefix(line, "    generation") && !strings.HasPrefix(line, "    slot") && !strings.HasPrefix(line, "    bodies") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "\n")
}

// TestRebuildWithoutJournal salvages what the index itself still says.
func TestRebuildWithoutJournal(t *testing.T) {
	db := open(t)
	fill(t, db)
	want := withoutMeta(records(t, db))
	if err := os.Remove(db.journalPath()); err != nil {
		t.Fatal(err)
	}
	wantSound(t, db)
	r, err := db.Rebuild(t.Context(), "", noBodies)
	if err != nil || r.Journal || r.Records == 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	if got := withoutMeta(records(t, db)); got != want {
		t.Error(firstDifference(got, want))
	}
	wantSound(t, db)
}

// TestDamagedIndex turns bytes over at places that change from run to run: what is
// not found must do no harm, what is found must be made good.
func TestDamagedIndex(t *testing.T) {
	db := open(t)
	fill(t, db)
	good, err := os.ReadFile(db.Path())
	if err != nil {
		t.Fatal(err)
	}
	want := withoutMeta(records(t, db))
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	found := 0
	for range 60 {
		bad := append([]byte(nil), good...)
		for range 1 + rnd.IntN(3) {
			bad[rnd.IntN(len(bad))] ^= byte(1 + rnd.IntN(255))
		}
		if err := os.WriteFile(db.Path(), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		problems, err := db.Verify(t.Context())
		if err != nil && !errors.Is(err, ErrNewer) {
			t.Fatal(err)
		}
		if len(problems) > 0 || err != nil {
			found++
			if r, err := db.Rebuild(t.Context(), "", noBodies); err != nil || !r.Whole {
				t.Fatalf("%+v, %v", r, err)
			}
		}
		if got := withoutMeta(records(t, db)); got != want {
			t.Fatalf("found %v; the index says something else: %s", problems, firstDifference(got, want))
		}
	}
	if found < 8 {
		t.Errorf("only %d of 60 damages were found", found)
	}
}

// TestJournalBehind: a writer killed between the commit and the journal is made
// good by the next; a torn line is passed over, a damaged one is noticed.
func TestJournalBehind(t *testing.T) {
	db := open(t)
	fill(t, db)
	old, err := os.ReadFile(db.journalPath())
	if err != nil {
		t.Fatal(err)
	}
	mustUpdate(t, db, func(tx *Tx) error { return tx.DeleteName("docker.io/library/n4:1") })
	for what, journal := range map[string][]byte{
		"behind": old, "torn": append(old[:len(old):len(old)], `{"slots":{`...), "nothing": nil, "text": []byte("nonsense"),
	} {
		if err := os.WriteFile(db.journalPath(), journal, 0o600); err != nil {
			t.Fatal(err)
		}
		mustUpdate(t, db, func(tx *Tx) error { return tx.PutLayer(Layer{DiffID: digest.FromString(what), Created: epoch}) })
		wantSound(t, db)
	}
	text, err := os.ReadFile(db.journalPath())
	if err != nil {
		t.Fatal(err)
	}
	text[len(text)/2] ^= 1
	if err := os.WriteFile(db.journalPath(), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if problems, err := db.Verify(t.Context()); err != nil || len(problems) != 1 {
		t.Errorf("a damaged line: %v, %v", problems, err)
	}
}

// TestJournalGetsShorter: a long history of few records does not fill the disk.
func TestJournalGetsShorter(t *testing.T) {
	db := open(t)
	for i := range 100 {
		mustUpdate(t, db, func(tx *Tx) error {
			return tx.PutImage(Image{ID: digest.FromString("x"), Config: descriptorOf(digest.FromString("c")), Metadata: strings.Repeat(string(rune('a'+i%20)), 20_000), Loaded: epoch})
		})
	}
	info, err := os.Stat(db.journalPath())
	if err != nil || info.Size() > 2*journalSlack {
		t.Errorf("%d bytes, %v", info.Size(), err)
	}
	wantSound(t, db)
}

// TestJournalTorn: a power failure may leave any line after the base torn, because
// lines are not waited for. The first writer of the next boot makes that good, and a
// check before him takes no offence; of a torn base, which was waited for, it does.
func TestJournalTorn(t *testing.T) {
	for _, c := range []struct {
		name             string
		inBase, sameBoot bool
		problems         int
	}{{"line", false, false, 0}, {"line, without a power failure", false, true, 1}, {"base", true, false, 1}} {
		db := open(t)
		mustUpdate(t, db, sample)
		base := len(readFile(t, db.journalPath()))
		for i := range 3 {
			mustUpdate(t, db, func(tx *Tx) error {
				return tx.PutLayer(Layer{DiffID: digest.FromString(fmt.Sprint(i)), Created: epoch})
			})
		}
		torn, at := readFile(t, db.journalPath()), base+30
		if c.inBase {
			at = journalHeaderLen + 30
		}
		clear(torn[at : at+10])
		if err := os.WriteFile(db.journalPath(), torn, 0o600); err != nil {
			t.Fatal(err)
		}
		if !c.sameBoot {
			db.SetBoot("the next one")
		}
		if problems, err := db.Verify(t.Context()); err != nil || len(problems) != c.problems {
			t.Errorf("%s: %v, %v", c.name, problems, err)
		}
		mustUpdate(t, db, func(tx *Tx) error { return tx.PutLayer(Layer{DiffID: digest.FromString("after"), Created: epoch}) })
		j, err := db.OpenJournal()
		if err != nil || j.Whole == c.sameBoot {
			t.Errorf("%s: after a change: whole %v, %v", c.name, j.Whole, err)
		}
		j.Close()
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
