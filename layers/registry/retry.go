package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"
)

const (
	// attempts is how often something is tried without any progress.
	attempts = 5
	// maxPause is the longest pause between two tries, also when the server asks for
	// more.
	maxPause = time.Minute
)

// transient says whether trying again may help: the server was busy or the
// connection broke. What a server, a certificate or a name says for good is not tried
// again.
func transient(err error) bool {
	var status *statusError
	if errors.As(err, &status) {
		return status.code == http.StatusTooManyRequests || status.code == http.StatusRequestTimeout ||
			status.code >= 500 && status.code != http.StatusNotImplemented
	}
	var cert *tls.CertificateVerificationError
	var dns *net.DNSError
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, errRedirects), errors.Is(err, http.ErrSchemeMismatch), errors.As(err, &cert):
		return false
	case errors.Is(err, syscall.ECONNREFUSED):
		return false
	case errors.As(err, &dns):
		return dns.IsTemporary
	case errors.Is(err, ErrStalled), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return true
	}
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// pause waits before the next try: as long as the server says, or twice as long as
// the last time.
func (c *Client) pause(ctx context.Context, try int, err error) error {
	d := c.o.Backoff << min(try, 10)
	d += rand.N(d/4 + 1) // so that many clients do not come back at once
	var status *statusError
	if errors.As(err, &status) {
		d = max(d, retryAfter(status.retryAfter))
	}
	t := time.NewTimer(min(d, maxPause))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// retryAfter reads the header of that name: seconds, or a date.
func retryAfter(text string) time.Duration {
	if n, err := strconv.Atoi(text); err == nil {
		return time.Duration(n) * time.Second
	}
	if t, err := http.ParseTime(text); err == nil {
		return time.Until(t)
	}
	return 0
}
