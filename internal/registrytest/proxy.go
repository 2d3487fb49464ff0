package registrytest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// A Proxy stands before a registry, records the requests and does to them what a test
// wants.
type Proxy struct {
	// Addr is HOST:PORT.
	Addr string

	mu    sync.Mutex // guards all below
	seen  []string
	fault func(w http.ResponseWriter, r *http.Request) bool
	cut   map[string]int64
}

// NewProxy starts a proxy before the registry at addr.
func NewProxy(t testing.TB, addr string) *Proxy {
	t.Helper()
	p := &Proxy{cut: map[string]int64{}}
	back := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: addr})
			r.Out.Host = r.In.Host // so that the registry names the proxy in its answers
		},
		ErrorLog:       quiet,
		ErrorHandler:   func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
		ModifyResponse: p.cutBody,
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		line := r.Method + " " + r.URL.Path
		if rg := r.Header.Get("Range"); rg != "" {
			line += " " + rg
		}
		p.seen = append(p.seen, line)
		fault := p.fault
		p.mu.Unlock()
		if fault != nil && fault(w, r) {
			return
		}
		back.ServeHTTP(w, r)
	}))
	s.Config.ErrorLog = quiet
	s.Start()
	t.Cleanup(s.Close)
	p.Addr = strings.TrimPrefix(s.URL, "http://")
	return p
}

// Fault makes fn see every request first; it returns true when it has answered.
func (p *Proxy) Fault(fn func(w http.ResponseWriter, r *http.Request) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = fn
}

// Cut breaks the connection after n bytes of the next answer with a body of more than
// n bytes to a request with part in its path; 0 takes that back.
func (p *Proxy) Cut(part string, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut[part] = n
}

// Requests returns what has been asked since the last call, as METHOD PATH [RANGE].
func (p *Proxy) Requests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := p.seen
	p.seen = nil
	return seen
}

func (p *Proxy) cutBody(resp *http.Response) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for part, n := range p.cut {
		if n > 0 && resp.ContentLength > n && strings.Contains(resp.Request.URL.Path, part) {
			delete(p.cut, part)
			resp.Body = &cutReader{resp.Body, n}
		}
	}
	return nil
}

// A cutReader fails after n bytes, which makes the proxy drop the connection.
type cutReader struct {
	io.ReadCloser
	n int64
}

func (c *cutReader) Read(b []byte) (int, error) {
	if c.n <= 0 {
		return 0, fmt.Errorf("cut")
	}
	n, err := c.ReadCloser.Read(b[:min(int64(len(b)), c.n)])
	c.n -= int64(n)
	return n, err
}
