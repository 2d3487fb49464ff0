// Package registrytest runs registries for tests: the docker-registry of the
// distribution project on a loopback address, and a proxy before it that does what
// networks and broken servers do.
package registrytest

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/layerfs/layerfs/internal/testenv"
)

// Options change how a registry is started; nil means anonymous and without TLS.
type Options struct {
	// Htpasswd is the content of a password file; clients must log in when it is set.
	Htpasswd string
	// TokenRealm, TokenRoots and TokenIssuer make the registry want tokens.
	TokenRealm, TokenRoots, TokenIssuer string
	// CertFile and KeyFile make it speak TLS.
	CertFile, KeyFile string
	// ClientCA makes it want a certificate of that authority from clients.
	ClientCA string
	// Dir holds the content; "" means a directory of the test.
	Dir string
}

// A Server is a running registry.
type Server struct {
	// Addr is HOST:PORT.
	Addr string
	// Dir holds the content.
	Dir string
}

// Start runs a registry until the test ends. The test is skipped, or fails in CI, when
// docker-registry is not installed.
func Start(t testing.TB, o *Options) *Server {
	t.Helper()
	testenv.Require(t, "docker-registry")
	if o == nil {
		o = &Options{}
	}
	dir := o.Dir
	if dir == "" {
		dir = t.TempDir()
	}
	for range 5 {
		s := &Server{Addr: freeAddr(t), Dir: dir}
		if s.run(t, o) {
			return s
		}
	}
	t.Fatal("docker-registry does not start")
	return nil
}

func (s *Server) run(t testing.TB, o *Options) bool {
	t.Helper()
	conf := filepath.Join(t.TempDir(), "config.yml")
	if err := os.WriteFile(conf, []byte(s.config(t, o)), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "docker-registry", "serve", conf)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "OTEL_TRACES_EXPORTER=none"}
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	stop := func() { cancel(); <-ended }
	if !s.answers(o, ended) {
		stop()
		t.Logf("docker-registry: %s", log.String())
		return false
	}
	t.Cleanup(stop)
	return true
}

func (s *Server) config(t testing.TB, o *Options) string {
	var b strings.Builder
	fmt.Fprintf(&b, "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n")
	fmt.Fprintf(&b, "storage: {filesystem: {rootdirectory: %q}, delete: {enabled: true}}\n", s.Dir)
	fmt.Fprintf(&b, "http:\n  addr: %s\n", s.Addr)
	if o.CertFile != "" {
		more := ""
		if o.ClientCA != "" {
			more = fmt.Sprintf(", clientcas: [%q]", o.ClientCA)
		}
		fmt.Fprintf(&b, "  tls: {certificate: %q, key: %q%s}\n", o.CertFile, o.KeyFile, more)
	}
	if o.Htpasswd != "" {
		file := filepath.Join(t.TempDir(), "htpasswd")
		if err := os.WriteFile(file, []byte(o.Htpasswd), 0o600); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "auth: {htpasswd: {realm: test, path: %q}}\n", file)
	}
	if o.TokenRealm != "" {
		fmt.Fprintf(&b, "auth: {token: {realm: %q, service: test, issuer: %q, rootcertbundle: %q}}\n", o.TokenRealm, o.TokenIssuer, o.TokenRoots)
	}
	return b.String()
}

// answers waits until the registry does.
func (s *Server) answers(o *Options, ended chan struct{}) bool {
	scheme := "http"
	if o.CertFile != "" {
		scheme = "https"
	}
	conf := &tls.Config{InsecureSkipVerify: true}
	if cert, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile); err == nil {
		conf.Certificates = []tls.Certificate{cert}
	}
	tr := &http.Transport{TLSClientConfig: conf}
	defer tr.CloseIdleConnections()
	client := &http.Client{Transport: tr, Timeout: time.Second}
	for range 200 {
		if resp, err := client.Get(scheme + "://" + s.Addr + "/v2/"); err == nil {
			resp.Body.Close()
			return true
		}
		select {
		case <-ended:
			return false
		case <-time.After(25 * time.Millisecond):
		}
	}
	return false
}

// freeAddr is a loopback address that nobody uses at this moment.
func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
