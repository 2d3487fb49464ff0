package index

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestContainerNames(t *testing.T) {
	db := open(t)
	a, b := strings.Repeat("a", 64), strings.Repeat("b", 64)
	mustUpdate(t, db, func(tx *Tx) error {
		return errors.Join(
			tx.PutContainer(Container{ID: a, Names: []string{"one", "uno"}, Created: epoch}),
			tx.PutContainer(Container{ID: b, Names: []string{"two"}, Created: epoch}),
		)
	})
	err := db.Update(t.Context(), "test", func(tx *Tx) error {
		return tx.PutContainer(Container{ID: b, Names: []string{"three", "uno"}, Created: epoch})
	})
	if !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), a) {
		t.Errorf("a taken name: %v, want ErrExists that names its holder", err)
	}
	mustUpdate(t, db, func(tx *Tx) error {
		return tx.PutContainer(Container{ID: a, Names: []string{"one"}, Created: epoch})
	})
	mustUpdate(t, db, func(tx *Tx) error { return tx.DeleteContainer(b) })
	err = db.View(t.Context(), func(tx *Tx) error {
		var names []string
		err := tx.EachContainerName(func(name, id string) error {
			names = append(names, name+" "+id[:1])
			return nil
		})
		if want := []string{"one a"}; !slices.Equal(names, want) {
			t.Errorf("names %q, want %q", names, want)
		}
		if c, err := tx.ContainerByName("one"); err != nil || c.ID != a {
			t.Errorf("ContainerByName: %v, %v", c, err)
		}
		for _, gone := range []string{"uno", "two", "three"} {
			if _, err := tx.ContainerByName(gone); !errors.Is(err, ErrNotFound) {
				t.Errorf("name %s: %v, want ErrNotFound", gone, err)
			}
		}
		if _, err := tx.Container(b); !errors.Is(err, ErrNotFound) {
			t.Errorf("deleted container: %v, want ErrNotFound", err)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	mustUpdate(t, db, func(tx *Tx) error {
		if err := tx.DeleteContainer(b); !errors.Is(err, ErrNotFound) {
			t.Errorf("second delete: %v, want ErrNotFound", err)
		}
		return nil
	})
}
