package registrytest

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// A TokenServer gives bearer tokens to who knows the password, or the refresh token.
type TokenServer struct {
	// Realm is its address, Issuer its name in tokens.
	Realm, Issuer string

	cert     *Certificate
	user     string
	password string
	refresh  string

	mu     sync.Mutex // guards scopes
	scopes []string
}

// NewTokenServer starts a token server. Its tokens are signed with the certificate.
func NewTokenServer(t testing.TB, cert *Certificate, user, password, refresh string) *TokenServer {
	t.Helper()
	s := &TokenServer{Issuer: "test-issuer", cert: cert, user: user, password: password, refresh: refresh}
	server := httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(server.Close)
	s.Realm = server.URL + "/token"
	return s
}

// ServeTLS makes the server answer on one more address, with TLS, and returns that.
func (s *TokenServer) ServeTLS(t testing.TB, cert *Certificate) (addr string) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(cert.CertFile, cert.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// Scopes returns what tokens were asked for.
func (s *TokenServer) Scopes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.scopes
}

func (s *TokenServer) serve(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	user, password, _ := r.BasicAuth()
	good := user == s.user && password == s.password
	if r.Method == http.MethodPost {
		good = s.refresh != "" && r.PostForm.Get("grant_type") == "refresh_token" && r.PostForm.Get("refresh_token") == s.refresh
	}
	if !good {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	scopes := strings.Fields(strings.Join(r.Form["scope"], " "))
	s.mu.Lock()
	s.scopes = append(s.scopes, scopes...)
	s.mu.Unlock()
	token, err := s.sign(r.Form.Get("service"), scopes)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "expires_in": 300}) // a client that has gone
}

// sign makes a JSON web token as the token specification of distribution wants it.
func (s *TokenServer) sign(service string, scopes []string) (string, error) {
	type access struct {
		Type    string   `json:"type"`
		Name    string   `json:"name"`
		Actions []string `json:"actions"`
	}
	var list []access
	for _, scope := range scopes {
		if parts := strings.Split(scope, ":"); len(parts) == 3 {
			list = append(list, access{parts[0], parts[1], strings.Split(parts[2], ",")})
		}
	}
	now := time.Now()
	header := map[string]any{"typ": "JWT", "alg": "ES256", "x5c": []string{base64.StdEncoding.EncodeToString(s.cert.der)}}
	claims := map[string]any{
		"iss": s.Issuer, "sub": s.user, "aud": service, "jti": rand.Text(),
		"exp": now.Add(5 * time.Minute).Unix(), "nbf": now.Add(-time.Minute).Unix(), "iat": now.Unix(), "access": list,
	}
	var parts []string
	for _, v := range []any{header, claims} {
		raw, err := json.Marshal(v)
		if err != nil {
			return "", err
		}
		parts = append(parts, base64.RawURLEncoding.EncodeToString(raw))
	}
	text := strings.Join(parts, ".")
	sum := sha256.Sum256([]byte(text))
	r, v, err := ecdsa.Sign(rand.Reader, s.cert.key, sum[:])
	if err != nil {
		return "", err
	}
	sig := append(r.FillBytes(make([]byte, 32)), v.FillBytes(make([]byte, 32))...)
	return text + "." + base64.RawURLEncoding.EncodeToString(sig), nil
}
