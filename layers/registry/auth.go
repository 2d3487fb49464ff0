package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"go.podman.io/image/v5/types"
)

// errLogin is about credentials that were refused, not missing.
var errLogin = errors.New("the credentials were refused")

// An authorizer shows the credentials of one repository in the way that its registry
// has asked for: by user name and password, or by a token that these buy elsewhere.
type authorizer struct {
	e     *endpoint
	scope string // that the endpoint works with

	mu     sync.Mutex // guards all below, also while a token is fetched
	asked  challenge
	tokens map[string]token // by scope
}

type token struct {
	value   string
	expires time.Time
}

// A challenge is what a registry asks for (RFC 9110, WWW-Authenticate).
type challenge struct {
	scheme string // basic or bearer
	params map[string]string
}

// apply adds the credentials to a request, once the registry has asked for some.
func (a *authorizer) apply(ctx context.Context, req *http.Request, extra string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch a.asked.scheme {
	case "basic":
		cred, err := a.credentials()
		if err == nil && cred != nil {
			req.SetBasicAuth(cred.Username, cred.Password)
		}
		return err
	case "bearer":
		t, err := a.tokenLocked(ctx, extra)
		if err == nil && t != "" {
			req.Header.Set("Authorization", "Bearer "+t)
		}
		return err
	}
	return nil
}

func (a *authorizer) credentials() (*types.DockerAuthConfig, error) {
	cred, err := a.e.c.credentials(a.e.named)
	if err != nil {
		return nil, fmt.Errorf("credentials of %s: %w", a.e.h.addr, err)
	}
	return cred, nil
}

// challenge takes the answer of a registry that wants credentials and says whether
// there are any to try again with.
func (a *authorizer) challenge(ctx context.Context, h http.Header, extra string) (bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.asked
	for _, c := range parseChallenges(h.Values("WWW-Authenticate")) {
		if c.scheme == "bearer" || c.scheme == "basic" && a.asked.scheme != "bearer" {
			a.asked = c
		}
		if c.scheme == "bearer" {
			break
		}
	}
	switch a.asked.scheme {
	case "bearer":
		delete(a.tokens, a.scopes(extra)) // it has not helped
		_, err := a.tokenLocked(ctx, extra)
		return true, err
	case "basic":
		cred, err := a.credentials()
		if err == nil && cred != nil && before.scheme == "basic" {
			err = fmt.Errorf("%s: %w: %w", a.e.h.addr, ErrUnauthorized, errLogin)
		}
		return cred != nil, err
	}
	return false, nil
}

// scopes is what the token has to be good for.
func (a *authorizer) scopes(extra string) string {
	return strings.TrimSpace(a.scope + " " + extra)
}

// tokenLocked returns a token that is still good for a while.
func (a *authorizer) tokenLocked(ctx context.Context, extra string) (string, error) {
	scopes := a.scopes(extra)
	if t, ok := a.tokens[scopes]; ok && time.Until(t.expires) > 5*time.Second {
		return t.value, nil
	}
	var t token
	for try := 0; ; try++ {
		var err error
		t, err = a.fetchToken(ctx, scopes)
		if err == nil {
			break
		}
		if try+1 >= attempts || !transient(err) {
			return "", err
		}
		if err := a.e.c.pause(ctx, try, err); err != nil {
			return "", err
		}
	}
	if a.tokens == nil {
		a.tokens = map[string]token{}
	}
	a.tokens[scopes] = t
	return t.value, nil
}

// fetchToken asks the token server that the registry has named.
func (a *authorizer) fetchToken(ctx context.Context, scopes string) (token, error) {
	realm, err := url.Parse(a.asked.params["realm"])
	if err != nil || realm.Host == "" || realm.Scheme != "https" && realm.Scheme != "http" {
		return token{}, fmt.Errorf("%s: %w: it names no address of a token server", a.e.h.addr, ErrUnauthorized)
	}
	if realm.Scheme == "http" && !a.e.h.insecure {
		return token{}, fmt.Errorf("%s: %w: its token server %s has no TLS", a.e.h.addr, ErrUnauthorized, realm.Host)
	}
	cred, err := a.credentials()
	if err != nil {
		return token{}, err
	}
	w := newWatch(ctx, a.e.c.o.Stall)
	defer w.stop()
	req, err := tokenRequest(w.ctx, realm, a.asked.params["service"], strings.Fields(scopes), cred)
	if err != nil {
		return token{}, err
	}
	req.Header.Set("User-Agent", a.e.c.o.UserAgent)
	resp, err := a.e.h.http.Do(req)
	if err != nil {
		return token{}, w.cause(err)
	}
	if resp.StatusCode != http.StatusOK {
		err := newStatusError(resp)
		if cred != nil && errors.Is(err, ErrUnauthorized) {
			return token{}, fmt.Errorf("%s: %w: %w", a.e.h.addr, errLogin, err)
		}
		return token{}, err
	}
	defer resp.Body.Close()
	return readToken(resp.Body)
}

// tokenRequest asks with a password (the token specification of distribution), or
// with a refresh token (its OAuth 2 variant).
func tokenRequest(ctx context.Context, realm *url.URL, service string, scopes []string, cred *types.DockerAuthConfig) (*http.Request, error) {
	q := realm.Query()
	if service != "" {
		q.Set("service", service)
	}
	if cred != nil && cred.IdentityToken != "" {
		q.Set("scope", strings.Join(scopes, " "))
		q.Set("grant_type", "refresh_token")
		q.Set("refresh_token", cred.IdentityToken)
		q.Set("client_id", "layerfs")
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, realm.String(), strings.NewReader(q.Encode()))
		if err == nil {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		return req, err
	}
	for _, scope := range scopes {
		q.Add("scope", scope)
	}
	if cred != nil {
		q.Set("account", cred.Username)
	}
	u := *realm
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err == nil && cred != nil {
		req.SetBasicAuth(cred.Username, cred.Password)
	}
	return req, err
}

// maxTokenAge is how long a token is used, whatever its server says.
const maxTokenAge = 24 * time.Hour

func readToken(r io.Reader) (token, error) {
	var doc struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
		ExpiresIn   int64  `json:"expires_in"`
	}
	if err := json.NewDecoder(io.LimitReader(r, 1<<20)).Decode(&doc); err != nil {
		return token{}, fmt.Errorf("%w: the answer of the token server is no JSON document: %w", ErrUnavailable, err)
	}
	if doc.Token == "" {
		doc.Token = doc.AccessToken
	}
	if doc.Token == "" {
		return token{}, fmt.Errorf("%w: the token server has given no token", ErrUnauthorized)
	}
	if doc.ExpiresIn < 60 {
		doc.ExpiresIn = 60 // what the specification says about a missing value
	}
	age := time.Duration(min(doc.ExpiresIn, int64(maxTokenAge/time.Second))) * time.Second
	return token{doc.Token, time.Now().Add(age)}, nil
}

// parseChallenges reads WWW-Authenticate headers with one challenge each, as
// registries send them.
func parseChallenges(headers []string) []challenge {
	var out []challenge
	for _, h := range headers {
		scheme, rest, _ := strings.Cut(strings.TrimSpace(h), " ")
		c := challenge{scheme: strings.ToLower(scheme), params: map[string]string{}}
		for rest = strings.TrimLeft(rest, " ,"); rest != ""; rest = strings.TrimLeft(rest, " ,") {
			var key, value string
			if key, rest, _ = strings.Cut(rest, "="); rest == "" {
				break
			}
			value, rest = paramValue(rest)
			c.params[strings.ToLower(strings.TrimSpace(key))] = value
		}
		out = append(out, c)
	}
	return out
}

// paramValue splits off a token or a quoted string.
func paramValue(s string) (value, rest string) {
	if s[0] != '"' {
		i := strings.IndexAny(s, ", ")
		if i < 0 {
			return s, ""
		}
		return s[:i], s[i:]
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case s[i] == '"':
			return b.String(), s[i+1:]
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), ""
}
