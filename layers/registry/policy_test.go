package registry

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/layerfs/layerfs/internal/registrytest"
	"github.com/layerfs/layerfs/internal/testenv"
	"github.com/layerfs/layerfs/layers/policy"
)

// A gpgHome has one secret key.
type gpgHome struct{ dir, public string }

func newGPG(t testing.TB, name string) gpgHome {
	t.Helper()
	dir, err := os.MkdirTemp("", "gpg") // short, for the socket of the agent
	if err != nil {
		t.Fatal(err)
	}
	h := gpgHome{dir, filepath.Join(dir, "public.gpg")}
	t.Cleanup(func() {
		_ = exec.Command("gpgconf", "--homedir", dir, "--kill", "all").Run() // there may be none
		os.RemoveAll(dir)
	})
	h.run(t, "--quick-gen-key", "--passphrase", "", name, "ed25519", "sign", "never")
	h.run(t, "--output", h.public, "--export")
	return h
}

func (h gpgHome) run(t testing.TB, args ...string) {
	t.Helper()
	cmd := exec.Command("gpg", append([]string{"--batch", "--quiet", "--homedir", h.dir}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
}

// An image that skopeo has signed is let in for whoever wants that key; nothing else
// is, and a requirement that is not understood refuses.
func TestPolicy(t *testing.T) {
	testenv.Require(t, "gpg", "skopeo")
	reg := registrytest.Start(t, nil)
	testImage(t, 1, 1000).Put(t, reg.Addr, "from", "v1")
	testImage(t, 9, 1000).Put(t, reg.Addr, "unsigned", "v1")
	signer, stranger := newGPG(t, "signer@example.com"), newGPG(t, "stranger@example.com")
	store := t.TempDir()
	regd := filepath.Dir(write(t, "storage.yaml", fmt.Sprintf("default-docker:\n  lookaside: file://%s\n", store)))
	cmd := exec.Command("skopeo", "--registries.d", regd, "copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false",
		"--sign-by", "signer@example.com", "docker://"+reg.Addr+"/from:v1", "docker://"+reg.Addr+"/signed/app:v1")
	cmd.Env = append(os.Environ(), "GNUPGHOME="+signer.dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	key, err := os.ReadFile(signer.public)
	if err != nil {
		t.Fatal(err)
	}
	signedBy := func(more string) string {
		return fmt.Sprintf(`{"type": "signedBy", "keyType": "GPGKeys", "keyPath": %q%s}`, signer.public, more)
	}
	docker := func(scope, requirement string) string {
		return fmt.Sprintf(`{"default": [{"type": "reject"}], "transports": {"docker": {%q: [%s]}}}`, scope, requirement)
	}
	host := reg.Addr
	tests := []struct {
		name, policy, image, want string // want is part of the refusal
	}{
		{"anything", `{"default": [{"type": "insecureAcceptAnything"}]}`, "unsigned:v1", ""},
		{"reject", `{"default": [{"type": "reject"}]}`, "unsigned:v1", "lets in no image"},
		{"scope", docker(host+"/unsigned", `{"type": "insecureAcceptAnything"}`), "unsigned:v1", ""},
		{"other scope", docker(host+"/unsigned", `{"type": "insecureAcceptAnything"}`), "signed/app:v1", "lets in no image"},
		{"signed", docker(host, signedBy("")), "signed/app:v1", ""},
		{"parent scope", docker(host+"/signed", signedBy("")), "signed/app:v1", ""},
		{"exact scope", docker(host+"/signed/app:v1", signedBy("")), "signed/app:v1", ""},
		{"wildcard", docker("*.0.0.1", signedBy("")), "signed/app:v1", ""},
		{"key data", docker("", fmt.Sprintf(`{"type": "signedBy", "keyType": "GPGKeys", "keyData": %q}`, base64.StdEncoding.EncodeToString(key))), "signed/app:v1", ""},
		{"both", docker("", signedBy("")+`, {"type": "reject"}`), "signed/app:v1", "lets in no image"},
		{"unsigned", docker("", signedBy("")), "unsigned:v1", "no signature"},
		{"other key", docker("", strings.ReplaceAll(signedBy(""), signer.public, stranger.public)), "signed/app:v1", "key"},
		{"identity", docker("", signedBy(`, "signedIdentity": {"type": "exactRepository", "dockerRepository": "example.com/other"}`)), "signed/app:v1", "for the name"},
		{"same repository", docker("", signedBy(`, "signedIdentity": {"type": "matchRepository"}`)), "signed/app:v1", ""},
		{"exact", docker("", signedBy(fmt.Sprintf(`, "signedIdentity": {"type": "exactReference", "dockerReference": "%s/signed/app:v1"}`, host))), "signed/app:v1", ""},
		{"sigstore", docker("", `{"type": "sigstoreSigned", "keyPath": "/x"}`), "signed/app:v1", `"sigstoreSigned"`},
		{"unheard of", docker("", `{"type": "askMyAunt"}`), "signed/app:v1", `"askMyAunt"`},
		{"key type", docker("", `{"type": "signedBy", "keyType": "X509"}`), "signed/app:v1", "X509"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newClient(t, &Options{Policy: write(t, "policy.json", tt.policy), RegistriesDir: regd})
			st := newStore(t)
			_, err := pull(t, c, st, host+"/"+tt.image)
			if tt.want == "" && err != nil || tt.want != "" && (!errors.Is(err, policy.ErrRejected) || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if err != nil {
				wantClean(t, st, 0)
			}
		})
	}
	broken := []string{
		`{}`, `{"default": []}`, `[]`, `{"default": [{"type": "reject"}], "extra": 1}`, `{"default": [{"kind": "reject"}]}`,
		`{"default": [{"type": "reject", "but": "not really"}]}`, `{"default": [{"type": "signedBy", "keyType": "GPGKeys"}]}`,
		docker("", signedBy(`, "signedIdentity": {"type": "whatever"}`)), docker("", ""), `{"default": [{"type": "reject"}]} {}`,
	}
	for _, text := range broken {
		if _, err := New(&Options{Policy: write(t, "policy.json", text)}); err == nil {
			t.Errorf("the policy %s is accepted", text)
		}
	}
	onWeb(t, reg.Addr, store, signer)
	moved(t, reg.Addr, regd, store, signer)
}

// onWeb checks that signatures are found on a web server, and that one that is out of
// order lets nothing in.
func onWeb(t *testing.T, addr, store string, signer gpgHome) {
	t.Helper()
	broken := false
	files := http.StripPrefix("/of/all", http.FileServer(http.Dir(store)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if broken {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		files.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	regd := filepath.Dir(write(t, "storage.yaml", fmt.Sprintf("docker:\n  %s/signed:\n    lookaside: %s/of/all\n", addr, server.URL)))
	rule := fmt.Sprintf(`{"default": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": %q}]}`, signer.public)
	c := newClient(t, &Options{Policy: write(t, "policy.json", rule), RegistriesDir: regd})
	if _, err := pull(t, c, newStore(t), addr+"/signed/app:v1"); err != nil {
		t.Errorf("signatures on a web server: %v", err)
	}
	if _, err := pull(t, c, newStore(t), addr+"/unsigned:v1"); !errors.Is(err, policy.ErrRejected) {
		t.Errorf("unsigned: got %v", err)
	}
	broken = true
	if _, err := pull(t, c, newStore(t), addr+"/signed/app:v1"); err == nil || !strings.Contains(err.Error(), "500") {
		t.Errorf("a broken web server: got %v", err)
	}
}

// moved checks that a signature is good for one manifest only.
func moved(t *testing.T, addr, regd, store string, signer gpgHome) {
	t.Helper()
	other := testImage(t, 50, 1000)
	other.Put(t, addr, "signed/app", "v1") // replaces what was signed
	from, err := filepath.Glob(filepath.Join(store, "signed", "app@*"))
	if err != nil || len(from) != 1 {
		t.Fatalf("signatures %v, %v", from, err)
	}
	to := filepath.Join(store, "signed", "app@sha256="+other.Desc.Digest.Encoded())
	if err := os.Rename(from[0], to); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(map[string]any{"default": []any{map[string]any{"type": "signedBy", "keyType": "GPGKeys", "keyPath": signer.public}}})
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, &Options{Policy: write(t, "policy.json", string(text)), RegistriesDir: regd})
	if _, err := pull(t, c, newStore(t), addr+"/signed/app:v1"); !errors.Is(err, policy.ErrRejected) || !strings.Contains(err.Error(), "signature is for the manifest") {
		t.Errorf("a signature of another manifest: got %v", err)
	}
}
