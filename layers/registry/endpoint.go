package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"

	"go.podman.io/image/v5/docker/reference"
)

// An endpoint is one repository on one server.
type endpoint struct {
	c     *Client
	h     *host
	named reference.Named // the repository, as it is called on that server
	auth  authorizer
}

// endpoint returns the repository of named on its own server.
func (c *Client) endpoint(ctx context.Context, named reference.Named, insecure, push bool) (*endpoint, error) {
	h, err := c.host(ctx, reference.Domain(named), insecure)
	if err != nil {
		return nil, err
	}
	actions := "pull"
	if push {
		actions = "pull,push"
	}
	e := &endpoint{c: c, h: h, named: reference.TrimNamed(named)}
	e.auth = authorizer{e: e, scope: "repository:" + reference.Path(named) + ":" + actions}
	return e, nil
}

// A request is one exchange with a registry; it is sent again when the answer was
// none, and when it has to show credentials.
type request struct {
	method string
	path   string // below /v2/NAME/
	root   bool   // it is about /v2/ itself
	query  url.Values
	url    *url.URL // instead of path and query
	header http.Header
	// body returns the body and its size, each time from the beginning; nil means none.
	body    func() (io.ReadCloser, int64, error)
	want    []int  // good answers
	scope   string // of the token besides the endpoint's own
	patient bool   // the server may need long before it answers
}

// do sends a request until there is an answer. Every answer but those that are wanted
// is an error.
func (e *endpoint) do(ctx context.Context, r request) (*http.Response, error) {
	for try := 0; ; try++ {
		resp, err := e.once(ctx, r)
		if err == nil {
			return resp, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if try+1 >= attempts || !transient(err) {
			return nil, e.explain(err)
		}
		if err := e.c.pause(ctx, try, err); err != nil {
			return nil, err
		}
	}
}

// once sends a request, a second time with new credentials when they are asked for.
func (e *endpoint) once(ctx context.Context, r request) (*http.Response, error) {
	for try := 0; ; try++ {
		resp, err := e.send(ctx, r)
		if err != nil {
			return nil, err
		}
		switch {
		case slices.Contains(r.want, resp.StatusCode):
			return resp, nil
		case resp.StatusCode == http.StatusUnauthorized && try == 0:
			again, err := e.auth.challenge(ctx, resp.Header, r.scope)
			if again || err != nil {
				resp.Body.Close()
			}
			if err != nil {
				return nil, err
			}
			if again {
				continue
			}
		}
		return nil, newStatusError(resp)
	}
}

// send sends a request over TLS or, to a server that need not have it, without.
func (e *endpoint) send(ctx context.Context, r request) (*http.Response, error) {
	scheme, fallback := e.h.base()
	resp, err := e.sendBy(ctx, scheme, r)
	if err != nil && fallback && r.url == nil && ctx.Err() == nil && !errors.Is(err, ErrStalled) {
		plain, perr := e.sendBy(ctx, "http", r)
		if perr == nil {
			scheme, resp, err = "http", plain, nil
		}
	}
	if err == nil {
		e.h.answered(scheme)
	}
	return resp, err
}

// patience is how much longer a server may need to store what it was sent.
const patience = 5

func (e *endpoint) sendBy(ctx context.Context, scheme string, r request) (*http.Response, error) {
	u := r.url
	if u == nil {
		u = &url.URL{Scheme: scheme, Host: e.h.server(), Path: "/v2/" + reference.Path(e.named) + "/" + r.path, RawQuery: r.query.Encode()}
	}
	if r.root {
		u = &url.URL{Scheme: scheme, Host: e.h.server(), Path: "/v2/"}
	}
	limit := e.c.o.Stall
	if r.patient {
		limit *= patience
	}
	w := newWatch(ctx, limit)
	req, err := http.NewRequestWithContext(w.ctx, r.method, u.String(), nil)
	if err != nil {
		w.stop()
		return nil, err
	}
	for key, values := range r.header {
		req.Header[key] = values
	}
	req.Header.Set("User-Agent", e.c.o.UserAgent)
	if r.body != nil {
		body, size, err := r.body()
		if err != nil {
			w.stop()
			return nil, err
		}
		req.Body, req.ContentLength = w.body(body), size
		if size == 0 {
			body.Close()
			req.Body = http.NoBody
		}
	}
	if u.Host == e.h.server() {
		if err := e.auth.apply(ctx, req, r.scope); err != nil {
			w.stop()
			return nil, err
		}
	}
	resp, err := e.h.http.Do(req)
	if err != nil {
		err = w.cause(err)
		w.stop()
		return nil, err
	}
	resp.Body = w.body(resp.Body)
	resp.Body = stopOnClose{resp.Body, w}
	return resp, nil
}

// explain says what to do about errors that a user can do something about.
func (e *endpoint) explain(err error) error {
	var cert *tls.CertificateVerificationError
	switch {
	case errors.As(err, &cert):
		return fmt.Errorf("%w: %s: its certificate is not trusted: %w; put the certificate of its CA as ca.crt into /etc/containers/certs.d/%s, or name a directory with --cert-dir",
			ErrUnavailable, e.h.addr, cert.Err, e.h.addr)
	case wantsCertificate(err):
		return fmt.Errorf("%w: %s: it wants a certificate from its clients: %w; put client.cert and client.key into /etc/containers/certs.d/%s, or name their directory with --cert-dir",
			ErrUnavailable, e.h.addr, rootCause(err), e.h.addr)
	case errors.Is(err, http.ErrSchemeMismatch):
		return fmt.Errorf("%w: %s speaks plain HTTP, which only registries on this machine may; allow it with --tls-verify=false or as insecure in registries.conf", ErrUnavailable, e.h.addr)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w: %s: connection refused; is the registry running?", ErrUnavailable, e.h.addr)
	case errors.Is(err, ErrUnauthorized) && !errors.Is(err, errLogin):
		return fmt.Errorf("%s: %w; log in with `layerfs login %s`, or give --creds", e.named.Name(), err, e.h.addr)
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		return fmt.Errorf("%w: %s: %w", ErrUnavailable, e.h.addr, ue.Err)
	}
	return fmt.Errorf("%s: %w", e.named.Name(), err)
}

// wantsCertificate reports whether a server has ended a connection because the client
// has shown no certificate, or one that it does not trust. Package tls exports neither
// the alert nor its number.
func wantsCertificate(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error" && strings.Contains(op.Err.Error(), "certificate")
}

// rootCause returns what an error of package net/http is about.
func rootCause(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		return ue.Err
	}
	return err
}
