package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.podman.io/image/v5/pkg/tlsclientconfig"
)

// dockerHub is the server behind the name docker.io.
const dockerHub = "registry-1.docker.io"

// A host is one server: HOST[:PORT] as in the names of images.
type host struct {
	addr     string
	insecure bool // any certificate and plain HTTP will do
	http     *http.Client

	mu     sync.Mutex // guards scheme
	scheme string     // "" until the server has answered
}

type hostKey struct {
	addr     string
	insecure bool
}

// host returns the server of a registry; insecure says that the configuration calls
// it so.
func (c *Client) host(ctx context.Context, addr string, insecure bool) (*host, error) {
	key := hostKey{addr, insecure || c.o.SkipTLSVerify || c.insecure.has(ctx, addr)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if h := c.hosts[key]; h != nil {
		return h, nil
	}
	tlsc, err := c.tlsConfig(addr, key.insecure)
	if err != nil {
		return nil, fmt.Errorf("registry %s: certificates: %w", addr, err)
	}
	h := &host{addr: addr, insecure: key.insecure}
	h.http = &http.Client{
		Transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: min(30*time.Second, c.o.Stall), KeepAlive: 30 * time.Second}).DialContext,
			TLSClientConfig:       tlsc,
			TLSHandshakeTimeout:   min(20*time.Second, c.o.Stall),
			ResponseHeaderTimeout: 0, // the watch of each request sees a silent server
			MaxIdleConnsPerHost:   c.o.Parallel + 1,
			IdleConnTimeout:       30 * time.Second,
			DisableCompression:    true, // a blob is what its digest says
			ForceAttemptHTTP2:     true,
			ReadBufferSize:        64 << 10,
		},
		CheckRedirect: h.checkRedirect,
	}
	c.hosts[key] = h
	return h, nil
}

// certDirs are where the certificates of a registry lie, the first that exists.
func certDirs(addr string) []string {
	var dirs []string
	if home, err := os.UserHomeDir(); err == nil {
		dirs = append(dirs, filepath.Join(home, ".config/containers/certs.d", addr))
	}
	return append(dirs, filepath.Join("/etc/containers/certs.d", addr), filepath.Join("/etc/docker/certs.d", addr))
}

func (c *Client) tlsConfig(addr string, insecure bool) (*tls.Config, error) {
	tlsc := &tls.Config{InsecureSkipVerify: insecure, MinVersion: tls.VersionTLS12}
	if c.o.CertDir != "" {
		if _, err := os.Stat(c.o.CertDir); err != nil {
			return nil, err
		}
		return tlsc, tlsclientconfig.SetupCertificates(c.o.CertDir, tlsc)
	}
	for _, dir := range certDirs(addr) {
		if _, err := os.Stat(dir); err == nil {
			return tlsc, tlsclientconfig.SetupCertificates(dir, tlsc)
		}
	}
	return tlsc, nil
}

// maxRedirects is how often one request may be sent elsewhere.
const maxRedirects = 10

var errRedirects = errors.New("more than 10 redirects: the registry sends the request in circles")

func (h *host) checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return errRedirects
	}
	first := via[0].URL
	if first.Scheme == "https" && req.URL.Scheme != "https" && !h.insecure {
		return fmt.Errorf("it redirects from TLS to %s://%s, which nobody could verify", req.URL.Scheme, req.URL.Host)
	}
	if req.URL.Host != first.Host {
		req.Header.Del("Authorization") // it is meant for the registry only
	}
	return nil
}

// base returns the scheme to use, and whether plain HTTP may be tried after it.
func (h *host) base() (scheme string, fallback bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.scheme != "" {
		return h.scheme, false
	}
	return "https", h.insecure
}

func (h *host) answered(scheme string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.scheme = scheme
}

// server is the address to connect to.
func (h *host) server() string {
	if h.addr == "docker.io" {
		return dockerHub
	}
	return h.addr
}
