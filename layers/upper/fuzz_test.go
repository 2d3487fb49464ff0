package upper

import "testing"

// FuzzMarks reads the texts of attributes of an upper directory, which a program in a container, or another tool, may
// have written. What is understood is written again as the same.
func FuzzMarks(f *testing.F) {
	for _, text := range []string{"0:0:100644:0:0", "1:2:20666:5:1", "-1:0:100644:0:0", "7:9", "4294967296:1", "::::", "0:0:1100644:0:0"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if o, ok := decodeOverride(text); ok {
			again, ok := decodeOverride(o.encode())
			if !ok || again != o {
				t.Errorf("override %q: %+v, and written again %+v", text, o, again)
			}
		}
		if o, ok := decodeOrigin(text); ok {
			if again, ok := decodeOrigin(o.encode()); !ok || again != o {
				t.Errorf("origin %q: %+v, and written again %+v", text, o, again)
			}
		}
	})
}
