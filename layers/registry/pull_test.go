package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/layerfs/layerfs/internal/registrytest"
	"github.com/layerfs/layerfs/layers"
)

// What comes out of the store is what was in the registry, and a layer that the store
// has is not fetched again.
func TestPull(t *testing.T) {
	reg := registrytest.Start(t, nil)
	proxy := registrytest.NewProxy(t, reg.Addr)
	img := testImage(t, 1, 1<<20)
	img.Put(t, reg.Addr, "team/app", "v1")
	st := newStore(t)
	c := newClient(t, nil)
	name := proxy.Addr + "/team/app:v1"
	got, err := pull(t, c, st, name)
	if err != nil {
		t.Fatal(err)
	}
	if got.ID != registrytest.Describe("", img.Config).Digest || len(got.Names) != 1 || got.Names[0].Name != name {
		t.Errorf("got image %s %v", got.ID, got.Names)
	}
	raw, err := st.Blob(got.Names[0].Manifest.Digest)
	if err != nil || !bytes.Equal(raw, img.Manifest) {
		t.Errorf("manifest %q (%v), want %q", raw, err, img.Manifest)
	}
	if left := partials(t, st); len(left) > 0 {
		t.Errorf("partial files are left: %v", left)
	}
	proxy.Requests()
	if _, err := pull(t, c, st, name); err != nil {
		t.Fatal(err)
	}
	for _, line := range proxy.Requests() {
		for _, l := range img.Layers {
			if strings.Contains(line, l.Desc.Digest.Encoded()) {
				t.Errorf("a known layer is asked for: %s", line)
			}
		}
	}
	if _, err := st.Image(t.Context(), proxy.Addr+"/team/app@"+string(img.Desc.Digest)); err != nil {
		t.Errorf("by digest: %v", err)
	}
}

// Broken connections are continued where they broke, and busy servers asked again.
func TestPullFaults(t *testing.T) {
	reg := registrytest.Start(t, nil)
	proxy := registrytest.NewProxy(t, reg.Addr)
	img := testImage(t, 10, 3<<20)
	img.Put(t, reg.Addr, "app", "v1")
	top := img.Layers[1].Desc.Digest
	once := func(code int, header http.Header) func(http.ResponseWriter, *http.Request) bool {
		done := map[string]bool{}
		return func(w http.ResponseWriter, r *http.Request) bool {
			if done[r.URL.Path] || r.Method != http.MethodGet {
				return false
			}
			done[r.URL.Path] = true
			for k, v := range header {
				w.Header()[k] = v
			}
			w.WriteHeader(code)
			return true
		}
	}
	tests := []struct {
		name  string
		fault func(http.ResponseWriter, *http.Request) bool
		cut   int64
		want  string // how a request begins that must be seen
	}{
		{name: "cut", cut: 1 << 20, want: fmt.Sprintf("GET /v2/app/blobs/%s bytes=10", top)},
		{name: "503", fault: once(503, nil)},
		{name: "429", fault: once(429, http.Header{"Retry-After": {"0"}})},
		{name: "502", fault: once(502, nil)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			proxy.Fault(tt.fault)
			proxy.Cut(string(top), tt.cut)
			proxy.Requests()
			st := newStore(t)
			if _, err := pull(t, newClient(t, &Options{Parallel: 1}), st, proxy.Addr+"/app:v1"); err != nil {
				t.Fatal(err)
			}
			wantClean(t, st, 1)
			if seen := proxy.Requests(); tt.want != "" && !contains(seen, tt.want) {
				t.Errorf("requests %q, want %q among them", seen, tt.want)
			}
		})
	}
}

// contains says whether a request begins like want.
func contains(list []string, want string) bool {
	for _, s := range list {
		if strings.HasPrefix(s, want) {
			return true
		}
	}
	return false
}

// A pull that was ended goes on in another client, as in another process: nothing is
// fetched twice and nothing was visible in between.
func TestPullResumes(t *testing.T) {
	reg := registrytest.Start(t, nil)
	proxy := registrytest.NewProxy(t, reg.Addr)
	img := testImage(t, 20, 4<<20)
	img.Put(t, reg.Addr, "app", "v1")
	name := proxy.Addr + "/app:v1"
	st := newStore(t)
	top := img.Layers[1]
	proxy.Fault(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, string(top.Desc.Digest)) {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(top.Desc.Size))
		w.Write(top.Blob[:1<<20])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return true
	})
	ctx, cancel := context.WithCancel(t.Context())
	o := &Options{Parallel: 1, Progress: func(p Progress) {
		if p.Index == 1 && p.Done == 1<<20 {
			cancel()
		}
	}}
	if _, err := pullContext(ctx, newClient(t, o), st, name); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want that it was canceled", err)
	}
	wantClean(t, st, 0)
	have := partials(t, st)[top.Desc.Digest.Encoded()]
	if have != 1<<20 {
		t.Fatalf("partial files %v, want a part of %s", partials(t, st), top.Desc.Digest)
	}
	proxy.Requests()
	proxy.Fault(nil)
	if _, err := pull(t, newClient(t, nil), st, name); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("GET /v2/app/blobs/%s bytes=%d-", top.Desc.Digest, have)
	if seen := proxy.Requests(); !contains(seen, want) {
		t.Errorf("requests %q, want %q among them", seen, want)
	}
	wantClean(t, st, 1)
}

// Old bytes that turn out to be wrong are fetched again; new ones that are wrong are
// refused and not kept.
func TestPullDamaged(t *testing.T) {
	reg := registrytest.Start(t, nil)
	proxy := registrytest.NewProxy(t, reg.Addr)
	img := testImage(t, 30, 1<<20)
	img.Put(t, reg.Addr, "app", "v1")
	st := newStore(t)
	p, err := st.OpenPartial(img.Layers[0].Desc.Digest)
	if err != nil {
		t.Fatal(err)
	}
	p.WriteAt(make([]byte, 1000), 0) // as after a power loss
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := pull(t, newClient(t, nil), st, proxy.Addr+"/app:v1"); err != nil {
		t.Fatal(err)
	}
	wantClean(t, st, 1)

	tests := []struct {
		name  string
		fault func(w http.ResponseWriter, r *http.Request) bool
		err   error
		part  string
	}{
		{"digest", blob(func(w http.ResponseWriter, l registrytest.Layer) {
			bad := bytes.Clone(l.Blob)
			bad[len(bad)/2] ^= 1
			w.Write(bad)
		}, img), layers.ErrVerification, ""},
		{"longer", blob(func(w http.ResponseWriter, l registrytest.Layer) {
			w.Header().Set("Transfer-Encoding", "chunked")
			w.Write(l.Blob)
			w.Write([]byte("more"))
		}, img), layers.ErrVerification, "longer"},
		{"size", blob(func(w http.ResponseWriter, l registrytest.Layer) { w.Write(l.Blob[:100]) }, img), layers.ErrVerification, "has 100 bytes"},
		{"loop", func(w http.ResponseWriter, r *http.Request) bool {
			if strings.Contains(r.URL.Path, "/blobs/") {
				http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
				return true
			}
			return false
		}, ErrUnavailable, "circles"},
		{"bomb", func(w http.ResponseWriter, r *http.Request) bool {
			for range 10 << 10 {
				if _, err := w.Write(bytes.Repeat([]byte("{},"), 1024)); err != nil {
					break
				}
			}
			return true
		}, ErrTooLarge, ""},
		{"stall", func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, string(img.Layers[0].Desc.Digest)) {
				return false
			}
			w.Header().Set("Content-Length", fmt.Sprint(img.Layers[0].Desc.Size))
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
			case <-time.After(10 * time.Second):
			}
			return true
		}, ErrStalled, "100ms"},
		{"unauthorized", func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}, ErrUnauthorized, "layerfs login"},
		{"absent", func(w http.ResponseWriter, r *http.Request) bool { http.NotFound(w, r); return true }, ErrNotFound, ""},
		{"schema 1", func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Content-Type", layers.MediaTypeDockerSchema1Sign)
			w.Write([]byte(`{"schemaVersion": 1, "fsLayers": []}`))
			return true
		}, layers.ErrInvalidImage, "schema 1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			proxy.Fault(tt.fault)
			st := newStore(t)
			stall := 20 * time.Second
			if tt.err == ErrStalled {
				stall = 100 * time.Millisecond
			}
			_, err := pull(t, newClient(t, &Options{Stall: stall}), st, proxy.Addr+"/app:v1")
			if !errors.Is(err, tt.err) || !strings.Contains(fmt.Sprint(err), tt.part) {
				t.Errorf("got %v, want %v with %q", err, tt.err, tt.part)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("more than a line: %v", err)
			}
			wantClean(t, st, 0)
		})
	}
}

// blob answers requests for the lowest layer.
func blob(fn func(http.ResponseWriter, registrytest.Layer), img *registrytest.Image) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, string(img.Layers[0].Desc.Digest)) {
			return false
		}
		fn(w, img.Layers[0])
		return true
	}
}
