package mounttest_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A lie is an image whose bytes are not what their digests say.
type lie struct {
	what string
	// tell changes the documents before they are described, or the blobs after.
	tell func(im *lyingImage)
}

// A lyingImage is an image in the making, and what will be served of it.
type lyingImage struct {
	layer, config, manifest []byte
	diffID                  string
	size                    int               // of the layer, to add in the manifest
	blobs                   map[string][]byte // by digest; made by build
	top                     string            // digest of the manifest
}

const (
	ociConfig   = "application/vnd.oci.image.config.v1+json"
	ociLayer    = "application/vnd.oci.image.layer.v1.tar"
	ociManifest = "application/vnd.oci.image.manifest.v1+json"
)

func sumOf(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }

func (im *lyingImage) build() {
	im.config = mustJSON(map[string]any{"architecture": "amd64", "os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": []string{im.diffID}}})
	im.manifest = mustJSON(map[string]any{
		"schemaVersion": 2, "mediaType": ociManifest,
		"config": map[string]any{"mediaType": ociConfig, "digest": sumOf(im.config), "size": len(im.config)},
		"layers": []any{map[string]any{"mediaType": ociLayer, "digest": sumOf(im.layer), "size": len(im.layer) + im.size}},
	})
	im.top = sumOf(im.manifest)
	im.blobs = map[string][]byte{sumOf(im.layer): im.layer, sumOf(im.config): im.config, im.top: im.manifest}
}

// change replaces a word in the blob with a digest.
func (im *lyingImage) change(digest, from, to string) {
	im.blobs[digest] = bytes.Replace(im.blobs[digest], []byte(from), []byte(to), 1)
}

var lies = []lie{
	{"another layer", func(im *lyingImage) { im.build(); im.change(sumOf(im.layer), "content", "c0ntent") }},
	{"another config", func(im *lyingImage) { im.build(); im.change(sumOf(im.config), "amd64", "amd46") }},
	{"another manifest", func(im *lyingImage) { im.build(); im.change(im.top, `"schemaVersion":2`, `"schemaVersion": 2`) }},
	{"another DiffID", func(im *lyingImage) { im.diffID = "sha256:" + strings.Repeat("ab", 32); im.build() }},
	{"another size", func(im *lyingImage) { im.size = 1; im.build() }},
	{"a shorter layer", func(im *lyingImage) { im.build(); im.blobs[sumOf(im.layer)] = im.layer[:len(im.layer)-512] }},
	{"a longer layer", func(im *lyingImage) {
		im.build()
		im.blobs[sumOf(im.layer)] = append(bytes.Clone(im.layer), make([]byte, 512)...)
	}},
}

func (l lie) image() *lyingImage {
	im := &lyingImage{layer: newTar().file("f", "content").bytes()}
	im.diffID = sumOf(im.layer)
	l.tell(im)
	return im
}

// flagValues has what the flags of load and pull are given, which may be said to loosen something. A new flag needs a
// line here: no flag may let something in whose digest is wrong.
var flagValues = map[string][]string{
	"name": {"--name=localhost/x:1"}, "platform": {"--platform=linux/amd64"}, "all-platforms": {"--all-platforms"},
	"max-size": {"--max-size=100GB"}, "keep-blobs": {"--keep-blobs", "--keep-blobs=false"}, "quiet": {"--quiet"},
	"creds": {"--creds=user:password"}, "authfile": {"--authfile=DIR/auth.json"}, "cert-dir": {"--cert-dir=DIR"},
	"tls-verify": {"--tls-verify=false"}, "insecure-registry": {"--insecure-registry=127.0.0.0/8"},
	"signature-policy": {"--signature-policy=DIR/policy.json"},
	"input":            nil, "dry-run": nil, "help": nil, // say what to do, not how
}

// flagsOf lists the flags of a verb, as its help does, each with a value, and all of them at once.
func (s *store) flagsOf(verb, dir string) [][]string {
	s.t.Helper()
	out := [][]string{nil}
	var all []string
	for _, line := range regexp.MustCompile(`(?m)^   --([a-z-]+)`).FindAllStringSubmatch(s.ok(verb, "--help"), -1) {
		values, known := flagValues[line[1]]
		if !known {
			s.t.Errorf("%s has the flag --%s, which is not tested: can it let in what has a wrong digest?", verb, line[1])
		}
		for i, v := range values {
			v = strings.ReplaceAll(v, "DIR", dir)
			out = append(out, []string{v})
			if i == len(values)-1 && line[1] != "all-platforms" { // which excludes --platform
				all = append(all, v)
			}
		}
	}
	return append(out, all)
}

// TestWrongDigests brings in images with wrong digests and sizes, from a directory and from a registry, under every
// flag of load and pull: each is refused as not verified, and nothing of it stays.
func TestWrongDigests(t *testing.T) {
	s := newStore(t, nil)
	s.load("-i", archiveOf(t, newTar().file("good", "1")))
	dir := t.TempDir()
	for name, text := range map[string]string{"auth.json": "{}", "policy.json": `{"default":[{"type":"insecureAcceptAnything"}]}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Without a lie the same gets in, and goes again with all that it has.
	im := lie{tell: (*lyingImage).build}.image()
	s.ok("load", "-q", "-i", im.layout(t))
	s.ok("pull", "-q", im.serve(t)+"/a@"+im.top)
	s.ok("rmi", "--force", sumOf(im.config))
	s.ok("gc")
	before := s.snapshot()
	loads, pulls := s.flagsOf("load", dir), s.flagsOf("pull", dir)
	if len(loads) < 6 || len(pulls) < 10 {
		t.Fatalf("%q, %q", loads, pulls)
	}
	for i, l := range lies {
		t.Run(l.what, func(t *testing.T) {
			s.t = t
			im := l.image()
			layout := im.layout(t)
			refuse := func(args ...string) {
				t.Helper()
				r := s.run(args...)
				if r.code != 5 {
					t.Errorf("want exit 5: %v", r)
				}
			}
			for j, flags := range loads {
				if j == 0 || j == len(loads)-1 || (i+j)%2 == 0 { // half of them for each lie
					refuse(append(append([]string{"load"}, flags...), "-i", layout)...)
				}
			}
			addr := im.serve(t)
			for j, flags := range pulls {
				if j == 0 || j == len(pulls)-1 || (i+j)%3 == 0 {
					refuse(append(append([]string{"pull"}, flags...), addr+"/a@"+im.top)...)
				}
			}
			refuse("pull", "oci:"+layout)
			// Pulls keep what they have fetched for the next one, unless it is wrong.
			if err := os.Remove(filepath.Join(s.root, "blobs/partial")); err != nil && !os.IsNotExist(err) {
				t.Errorf("something is kept of what pulls have begun: %v", err)
			}
			s.unchanged(before)
		})
	}
	s.t = t
	s.checkClean()
}

// layout writes the image as an OCI layout.
func (im *lyingImage) layout(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	files := map[string][]byte{
		"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`),
		"index.json": mustJSON(map[string]any{"schemaVersion": 2, "manifests": []any{
			map[string]any{"mediaType": ociManifest, "digest": im.top, "size": len(im.manifest)},
		}}),
	}
	for digest, data := range im.blobs {
		files["blobs/sha256/"+strings.TrimPrefix(digest, "sha256:")] = data
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, files[name], 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// serve is a registry that has nothing but the image, as the repository a.
func (im *lyingImage) serve(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := strings.TrimPrefix(r.URL.Path, "/v2/")
		kind, digest, _ := strings.Cut(strings.TrimPrefix(path, "a/"), "/")
		data, ok := im.blobs[digest]
		switch {
		case path == "":
			w.WriteHeader(http.StatusOK)
			return
		case !ok:
			w.WriteHeader(http.StatusNotFound)
			return
		case kind == "manifests":
			w.Header().Set("Content-Type", ociManifest)
		}
		w.Header().Set("Docker-Content-Digest", digest) // as the lie has it
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		w.Write(data)
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}
