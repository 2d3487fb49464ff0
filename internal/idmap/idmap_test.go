package idmap

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	got, err := Parse("0:1000:1,1:100000:65536")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Range{{0, 1000, 1}, {1, 100000, 65536}}, got); diff != "" {
		t.Error(diff)
	}
	for _, text := range []string{
		"", "0:0", "a:b:c", "0:0:0", "0:4294967295:1", "4294967295:0:1", "-1:0:1", "0:0:1,0:5:1", "0:0:10,20:9:1", "0:0:1,", "0:0:99999999999",
	} {
		if m, err := Parse(text); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: got %v, %v; want ErrInvalid", text, m, err)
		}
	}
}
