package registry

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/layerfs/layerfs/internal/registrytest"
	"github.com/layerfs/layerfs/internal/testenv"
)

const user, secret = "me", "open sesame"

func htpasswd(t testing.TB) string {
	t.Helper()
	testenv.Require(t, "htpasswd")
	out, err := exec.Command("htpasswd", "-Bbn", user, secret).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// write makes a file in a directory of the test and returns its path.
func write(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func auths(addr string) string {
	return fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, addr, base64.StdEncoding.EncodeToString([]byte(user+":"+secret)))
}

// A push and a pull with a password, from every place where it may be.
func TestBasicAuth(t *testing.T) {
	reg := registrytest.Start(t, &registrytest.Options{Htpasswd: htpasswd(t)})
	st := newStore(t)
	open := registrytest.Start(t, nil)
	testImage(t, 1, 1000).Put(t, open.Addr, "app", "v1")
	if _, err := pull(t, newClient(t, nil), st, open.Addr+"/app:v1"); err != nil {
		t.Fatal(err)
	}
	creds := &Options{Credentials: &Credentials{Username: user, Password: secret}}
	if _, err := push(t, newClient(t, creds), st, open.Addr+"/app:v1", reg.Addr+"/app:v1"); err != nil {
		t.Fatal(err)
	}
	name := reg.Addr + "/app:v1"
	if _, err := pull(t, newClient(t, nil), newStore(t), name); !errors.Is(err, ErrUnauthorized) || !strings.Contains(err.Error(), "layerfs login "+reg.Addr) {
		t.Errorf("without credentials: got %v", err)
	}
	wrong := &Options{Credentials: &Credentials{Username: user, Password: "wrong"}}
	if _, err := pull(t, newClient(t, wrong), newStore(t), name); !errors.Is(err, ErrUnauthorized) {
		t.Errorf("with a wrong password: got %v", err)
	}

	helper := write(t, "docker-credential-test", fmt.Sprintf("#!/bin/sh\ncat >/dev/null\necho '{\"ServerURL\":\"x\",\"Username\":%q,\"Secret\":%q}'\n", user, secret))
	tests := []struct {
		name string
		set  func(t *testing.T) *Options
	}{
		{"authfile", func(t *testing.T) *Options { return &Options{AuthFile: write(t, "auth.json", auths(reg.Addr))} }},
		{"REGISTRY_AUTH_FILE", func(t *testing.T) *Options {
			t.Setenv("REGISTRY_AUTH_FILE", write(t, "auth.json", auths(reg.Addr)))
			return nil
		}},
		{"DOCKER_CONFIG", func(t *testing.T) *Options {
			t.Setenv("DOCKER_CONFIG", filepath.Dir(write(t, "config.json", auths(reg.Addr))))
			return nil
		}},
		{"repository", func(t *testing.T) *Options {
			return &Options{AuthFile: write(t, "auth.json", auths(reg.Addr+"/app"))}
		}},
		{"helper", func(t *testing.T) *Options {
			t.Setenv("PATH", filepath.Dir(helper)+":"+os.Getenv("PATH"))
			return &Options{AuthFile: write(t, "auth.json", fmt.Sprintf(`{"credHelpers": {%q: "test"}}`, reg.Addr))}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := pull(t, newClient(t, tt.set(t)), newStore(t), name); err != nil {
				t.Error(err)
			}
		})
	}
}

// A registry with TLS is trusted when its authority is, or when it need not be.
func TestTLS(t *testing.T) {
	cert := registrytest.NewCertificate(t)
	reg := registrytest.Start(t, &registrytest.Options{CertFile: cert.CertFile, KeyFile: cert.KeyFile})
	open := registrytest.Start(t, nil)
	testImage(t, 1, 1000).Put(t, open.Addr, "app", "v1")
	st := newStore(t)
	if _, err := pull(t, newClient(t, nil), st, open.Addr+"/app:v1"); err != nil {
		t.Fatal(err)
	}
	name := reg.Addr + "/app:v1"
	if _, err := push(t, newClient(t, &Options{CertDir: cert.Trust}), st, open.Addr+"/app:v1", name); err != nil {
		t.Fatal(err)
	}
	if _, err := pull(t, newClient(t, nil), newStore(t), name); err != nil {
		t.Errorf("loopback addresses need no good certificate: %v", err)
	}
	if _, err := New(&Options{Insecure: []string{"10.0.0.0/33"}}); err == nil {
		t.Error("a range that is none is accepted")
	}

	strict := newClient(t, nil)
	strict.insecure.nets = nil
	if _, err := pull(t, strict, newStore(t), name); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "not trusted") {
		t.Errorf("an unknown certificate: got %v", err)
	}
	strict = newClient(t, nil)
	strict.insecure.nets = nil
	if _, err := pull(t, strict, newStore(t), open.Addr+"/app:v1"); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "plain HTTP") {
		t.Errorf("plain HTTP: got %v", err)
	}
	for _, o := range []*Options{
		{CertDir: cert.Trust},
		{SkipTLSVerify: true},
		{Insecure: []string{reg.Addr}},
		{Insecure: []string{"127.0.0.0/24"}},
	} {
		c := newClient(t, o)
		c.insecure.nets = c.insecure.nets[len(loopback):]
		if _, err := pull(t, c, newStore(t), name); err != nil {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

// Bearer tokens are bought with a password or a refresh token, for what is needed.
func TestTokens(t *testing.T) {
	cert := registrytest.NewCertificate(t)
	tokens := registrytest.NewTokenServer(t, cert, user, secret, "refresh me")
	reg := registrytest.Start(t, &registrytest.Options{TokenRealm: tokens.Realm, TokenRoots: cert.CertFile, TokenIssuer: tokens.Issuer})
	open := registrytest.Start(t, nil)
	testImage(t, 1, 1000).Put(t, open.Addr, "app", "v1")
	st := newStore(t)
	if _, err := pull(t, newClient(t, nil), st, open.Addr+"/app:v1"); err != nil {
		t.Fatal(err)
	}
	creds := func() *Client {
		return newClient(t, &Options{Credentials: &Credentials{Username: user, Password: secret}})
	}
	name := reg.Addr + "/team/app:v1"
	if _, err := push(t, creds(), st, open.Addr+"/app:v1", name); err != nil {
		t.Fatal(err)
	}
	shared := newStore(t)
	if _, err := pull(t, creds(), shared, name); err != nil {
		t.Fatal(err)
	}
	if _, err := push(t, creds(), shared, name, reg.Addr+"/team/other:v1"); err != nil {
		t.Fatal(err)
	}
	for _, scope := range []string{"repository:team/app:pull,push", "repository:team/app:pull", "repository:team/other:pull,push"} {
		if !contains(tokens.Scopes(), scope) {
			t.Errorf("scopes %q, want %s among them", tokens.Scopes(), scope)
		}
	}
	identity := fmt.Sprintf(`{"auths": {%q: {"auth": %q, "identitytoken": "refresh me"}}}`, reg.Addr, base64.StdEncoding.EncodeToString([]byte("x:")))
	if _, err := pull(t, newClient(t, &Options{AuthFile: write(t, "auth.json", identity)}), newStore(t), name); err != nil {
		t.Errorf("with a refresh token: %v", err)
	}
	wrong := &Options{Credentials: &Credentials{Username: user, Password: "wrong"}}
	_, err := pull(t, newClient(t, wrong), newStore(t), name)
	if !errors.Is(err, ErrUnauthorized) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("with a wrong password: got %v", err)
	}
	if _, err := pull(t, newClient(t, nil), newStore(t), name); !errors.Is(err, ErrUnauthorized) {
		t.Errorf("without credentials: got %v", err)
	}
}

func TestParseChallenges(t *testing.T) {
	tests := []struct {
		in   string
		want challenge
	}{
		{`Bearer realm="https://a/t?x=1,2",service="s \"q\"" , scope="repository:a:pull"`, challenge{"bearer", map[string]string{
			"realm": "https://a/t?x=1,2", "service": `s "q"`, "scope": "repository:a:pull",
		}}},
		{`basic Realm=x`, challenge{"basic", map[string]string{"realm": "x"}}},
		{`Negotiate`, challenge{"negotiate", map[string]string{}}},
		{`Bearer realm="unfinished`, challenge{"bearer", map[string]string{"realm": "unfinished"}}},
		{`Bearer realm=`, challenge{"bearer", map[string]string{}}},
		{``, challenge{"", map[string]string{}}},
	}
	for _, tt := range tests {
		if got := parseChallenges([]string{tt.in}); len(got) != 1 || !reflect.DeepEqual(got[0], tt.want) {
			t.Errorf("%q: got %v, want %v", tt.in, got, tt.want)
		}
	}
}
