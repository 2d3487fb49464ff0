package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

var (
	// ErrNotFound is returned when a registry has no such repository, tag or blob.
	ErrNotFound = errors.New("not found in the registry")
	// ErrUnauthorized is returned when a registry wants other credentials, or does not
	// allow what was asked of it.
	ErrUnauthorized = errors.New("not authorized")
	// ErrUnavailable is returned when a registry cannot be reached, or does not answer
	// as one after several tries.
	ErrUnavailable = errors.New("registry is unavailable")
	// ErrBlocked is returned for a registry that registries.conf blocks.
	ErrBlocked = errors.New("registry is blocked")
	// ErrShortName is returned when it cannot be told which registry a short name means.
	ErrShortName = errors.New("short name does not resolve")
	// ErrNoPlatform is returned when an index has no image for the wanted platform.
	ErrNoPlatform = errors.New("no image for the platform")
	// ErrTooLarge is returned for documents that are too large to be what they should be.
	ErrTooLarge = errors.New("too large")
	// ErrStalled is returned when a server has sent nothing for too long.
	ErrStalled = errors.New("the server has stalled")
)

// A statusError is an answer that says no.
type statusError struct {
	method, url string
	code        int
	text        string // what the registry says about it, one line
	retryAfter  string
}

func (e *statusError) Error() string {
	s := fmt.Sprintf("%s %s: %d %s", e.method, e.url, e.code, http.StatusText(e.code))
	if e.text != "" {
		s += ": " + e.text
	}
	return s
}

func (e *statusError) Unwrap() error {
	switch {
	case e.code == http.StatusNotFound:
		return ErrNotFound
	case e.code == http.StatusUnauthorized || e.code == http.StatusForbidden:
		return ErrUnauthorized
	case e.code == http.StatusTooManyRequests || e.code >= 500:
		return ErrUnavailable
	}
	return nil
}

// maxErrorBody is how much of an answer is read for what it says about an error.
const maxErrorBody = 64 << 10

// newStatusError reads and closes the body of an answer that says no.
func newStatusError(resp *http.Response) *statusError {
	defer resp.Body.Close()
	e := &statusError{
		method: resp.Request.Method, url: resp.Request.URL.Redacted(), code: resp.StatusCode,
		retryAfter: resp.Header.Get("Retry-After"),
	}
	if i := strings.IndexByte(e.url, '?'); i >= 0 {
		e.url = e.url[:i] // signed addresses are secrets, and long
	}
	raw, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody)) // what came is enough
	var doc struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
	}
	if json.Unmarshal(raw, &doc) == nil && len(doc.Errors) > 0 {
		e.text = doc.Errors[0].Message
		if e.text == "" {
			e.text = doc.Errors[0].Code
		}
		e.text = oneLine(e.text)
	}
	return e
}

// oneLine keeps text from a server from making lines of its own, and short.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
	if len(s) > 300 {
		s = s[:300] + "…"
	}
	return strings.TrimSpace(s)
}
