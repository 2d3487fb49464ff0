package registry

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/layerfs/layerfs/internal/registrytest"
)

// hub returns a client whose docker.io is a registry of the test.
func hub(t *testing.T, o *Options, addrs map[string]string) *Client {
	t.Helper()
	c := newClient(t, o)
	h, err := c.host(t.Context(), "docker.io", false)
	if err != nil {
		t.Fatal(err)
	}
	h.http.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		to, ok := addrs[addr]
		if !ok {
			return nil, fmt.Errorf("the test has no %s", addr)
		}
		var d net.Dialer
		return d.DialContext(ctx, network, to)
	}
	return c
}

// docker.io is reached as its server is called, with a token that another server gives
// for nothing, a password or a refresh token; credentials are where docker keeps them.
func TestHub(t *testing.T) {
	cert := registrytest.NewCertificate(t, dockerHub, "auth.docker.io")
	tokens := registrytest.NewTokenServer(t, cert, user, secret, "refresh me")
	reg := registrytest.Start(t, &registrytest.Options{
		CertFile: cert.CertFile, KeyFile: cert.KeyFile,
		TokenRealm: "https://auth.docker.io/token", TokenRoots: cert.CertFile, TokenIssuer: tokens.Issuer,
	})
	addrs := map[string]string{dockerHub + ":443": reg.Addr, "auth.docker.io:443": tokens.ServeTLS(t, cert)}
	open := registrytest.Start(t, nil)
	testImage(t, 1, 1000).Put(t, open.Addr, "app", "v1")
	st := newStore(t)
	if _, err := pull(t, newClient(t, nil), st, open.Addr+"/app:v1"); err != nil {
		t.Fatal(err)
	}
	auth := func(entry string) *Options {
		file := write(t, "config.json", fmt.Sprintf(`{"auths": {"https://index.docker.io/v1/": %s}}`, entry))
		return &Options{CertDir: cert.Trust, AuthFile: file}
	}
	basic := base64.StdEncoding.EncodeToString([]byte(user + ":" + secret))
	password := auth(fmt.Sprintf(`{"auth": %q}`, basic))
	identity := auth(fmt.Sprintf(`{"auth": %q, "identitytoken": "refresh me"}`, base64.StdEncoding.EncodeToString([]byte(user+":"))))
	expired := auth(fmt.Sprintf(`{"auth": %q, "identitytoken": "of last year"}`, base64.StdEncoding.EncodeToString([]byte(user+":"))))
	if _, err := push(t, hub(t, password, addrs), st, open.Addr+"/app:v1", "docker.io/library/app:v1"); err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]*Options{"password": password, "identity token": identity} {
		img, err := pull(t, hub(t, o, addrs), newStore(t), "docker.io/app:v1")
		if err != nil || img.Names[0].Name != "docker.io/library/app:v1" {
			t.Errorf("%s: got %v, %v", name, img, err)
		}
	}
	if _, err := pull(t, hub(t, expired, addrs), newStore(t), "docker.io/app:v1"); !errors.Is(err, ErrUnauthorized) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("with an old token: got %v", err)
	}
	if _, err := pull(t, hub(t, &Options{CertDir: cert.Trust}, addrs), newStore(t), "docker.io/app:v1"); !errors.Is(err, ErrUnauthorized) || !strings.Contains(err.Error(), "layerfs login docker.io") {
		t.Errorf("without credentials: got %v", err)
	}
	if !contains(tokens.Scopes(), "repository:library/app:pull,push") || !contains(tokens.Scopes(), "repository:library/app:pull") {
		t.Errorf("scopes %q", tokens.Scopes())
	}
}

// A registry that wants a certificate gets the one that lies in certs.d.
func TestClientCertificate(t *testing.T) {
	cert := registrytest.NewCertificate(t)
	reg := registrytest.Start(t, &registrytest.Options{CertFile: cert.CertFile, KeyFile: cert.KeyFile, ClientCA: cert.CertFile})
	open := registrytest.Start(t, nil)
	testImage(t, 1, 1000).Put(t, open.Addr, "app", "v1")
	st := newStore(t)
	if _, err := pull(t, newClient(t, nil), st, open.Addr+"/app:v1"); err != nil {
		t.Fatal(err)
	}
	strict := func(o *Options) *Client {
		c := newClient(t, o)
		c.insecure.nets = nil // loopback addresses would need no certificates
		return c
	}
	name := reg.Addr + "/app:v1"
	if _, err := push(t, strict(&Options{CertDir: cert.Trust}), st, open.Addr+"/app:v1", name); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "client.cert") {
		t.Errorf("without a certificate: got %v", err)
	}
	dir := filepath.Join(os.Getenv("HOME"), ".config/containers/certs.d", reg.Addr)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for from, to := range map[string]string{cert.CertFile: "client.cert", cert.KeyFile: "client.key", filepath.Join(cert.Trust, "ca.crt"): "ca.crt"} {
		raw, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, to), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := push(t, strict(nil), st, open.Addr+"/app:v1", name); err != nil {
		t.Fatal(err)
	}
	if _, err := pull(t, strict(nil), newStore(t), name); err != nil {
		t.Error(err)
	}
	if err := os.Remove(filepath.Join(dir, "client.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := pull(t, strict(nil), newStore(t), name); err == nil || !strings.Contains(err.Error(), "client.key") {
		t.Errorf("a certificate without its key: got %v", err)
	}
}
