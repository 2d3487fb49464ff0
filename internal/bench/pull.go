package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// pull compares a pull from a registry on this machine with a load of the same image
// from a file, and with podman.
func (b *bench) pull(name string, overLoad, overPodman float64) error {
	t, err := b.opened(name)
	if err != nil {
		return err
	}
	addr, stop, err := b.registry()
	if err != nil {
		return err
	}
	defer stop()
	ref := addr + "/bench:1"
	if _, err := b.command("skopeo", "copy", "-q", "--dest-tls-verify=false", "oci-archive:"+t.archive, "docker://"+ref); err != nil {
		return err
	}
	var s *store
	fresh := func() (err error) {
		s, err = b.newStore()
		return errors.Join(err, warmArchive(t))
	}
	remove := func() error { return s.remove() }
	sides := []side{
		{name: "pull", before: fresh, run: func() (sample, error) { return s.run("pull", "-q", ref) }, after: remove},
		{name: "load", before: fresh, run: func() (sample, error) { return s.run("load", "-q", "-i", t.archive) }, after: remove},
	}
	if _, err := exec.LookPath("podman"); err == nil && os.Geteuid() == 0 {
		p := b.podmanDo(t, "pull", "-q", "--tls-verify=false", ref)
		sides = append(sides, p)
	} else {
		b.skip("pull "+name, "no comparison with podman: it is not installed, or this is not root")
	}
	got, err := b.alternate(b.loads(), sides...)
	if err != nil {
		return err
	}
	what := "pull " + b.label(name)
	b.ratio(what+", wall", "layerfs load", got[0], got[1], wall, overLoad)
	if len(got) > 2 {
		b.ratio(what+", wall", "podman pull", got[0], got[2], wall, overPodman)
	}
	return nil
}

// registry starts a registry on a loopback address.
func (b *bench) registry() (addr string, stop func(), err error) {
	dir, err := b.dir("registry")
	if err != nil {
		return "", nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	addr = l.Addr().String()
	l.Close() // the registry listens there
	conf := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %q}}\nhttp: {addr: %q}\n", dir, addr)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return "", nil, err
	}
	ctx, cancel := context.WithCancel(b.ctx)
	cmd := exec.CommandContext(ctx, "docker-registry", "serve", conf)
	if err := cmd.Start(); err != nil {
		cancel()
		return "", nil, err
	}
	stop = func() {
		cancel()
		_ = cmd.Wait()        // it was killed
		_ = os.RemoveAll(dir) // what is left goes with the directory of the run
	}
	for range 200 {
		if resp, err := http.Get("http://" + addr + "/v2/"); err == nil {
			return addr, stop, resp.Body.Close()
		}
		time.Sleep(25 * time.Millisecond)
	}
	stop()
	return "", nil, errors.New("docker-registry does not answer")
}

// pushAgain sends an image to a registry twice and counts what the second push asks
// for besides what is there already.
func (b *bench) pushAgain() error {
	t, err := b.treesOf("debpy")
	if err != nil {
		return err
	}
	addr, stop, err := b.registry()
	if err != nil {
		return err
	}
	defer stop()
	var mu sync.Mutex
	methods := map[string]int{}
	back := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: addr})
		r.Out.Host = r.In.Host // so that the registry names the proxy in its answers
	}}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		methods[r.Method]++
		mu.Unlock()
		back.ServeHTTP(w, r)
	}))
	defer proxy.Close()
	to := strings.TrimPrefix(proxy.URL, "http://") + "/bench:1"
	first, err := t.store.run("push", "-q", t.reference(), to)
	if err != nil {
		return err
	}
	mu.Lock()
	clear(methods)
	mu.Unlock()
	second, err := t.store.run("push", "-q", t.reference(), to)
	if err != nil {
		return err
	}
	mu.Lock()
	defer mu.Unlock()
	others := 0
	for method, n := range methods {
		if method != http.MethodHead {
			others += n
		}
	}
	b.bound(fmt.Sprintf("push again: requests beside %d HEAD", methods[http.MethodHead]), float64(others), 0, number, 0)
	b.ratio("push again, wall", "first push", samples{second}, samples{first}, wall, 0)
	return nil
}
