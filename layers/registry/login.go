package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/pkg/docker/config"

	"github.com/layerfs/layerfs/layers"
)

// ErrNotLoggedIn is returned by Logout when there are no credentials to remove.
var ErrNotLoggedIn = errors.New("not logged in")

// Login asks a registry whether the credentials of Options are good, and stores them in
// the file of credentials. It returns where.
func (c *Client) Login(ctx context.Context, host string) (string, error) {
	if c.o.Credentials == nil {
		return "", fmt.Errorf("%w: %s: no user name was given", ErrUnauthorized, host)
	}
	named, err := reference.ParseNormalizedNamed(host + "/any")
	if err != nil || reference.Domain(named) != host {
		return "", fmt.Errorf("%w: %q is no registry: want HOST[:PORT]", layers.ErrInvalidName, host)
	}
	e, err := c.endpoint(ctx, named, false, false)
	if err != nil {
		return "", err
	}
	e.auth.scope = "" // being somebody is all that is asked
	resp, err := e.do(ctx, request{method: http.MethodGet, root: true, want: []int{http.StatusOK}})
	if errors.Is(err, ErrUnauthorized) {
		return "", fmt.Errorf("%s: %w: %w", host, ErrUnauthorized, errLogin)
	}
	if err != nil {
		return "", err
	}
	resp.Body.Close()
	where, err := config.SetCredentials(c.sys, host, c.o.Credentials.Username, c.o.Credentials.Password)
	if err != nil {
		return "", fmt.Errorf("credentials of %s: %w", host, err)
	}
	return where, nil
}

// Logout removes the stored credentials of a registry; "" stands for all registries.
func (c *Client) Logout(host string) error {
	if host == "" {
		return config.RemoveAllAuthentication(c.sys)
	}
	err := config.RemoveAuthentication(c.sys, host)
	if errors.Is(err, config.ErrNotLoggedIn) {
		return fmt.Errorf("%s: %w", host, ErrNotLoggedIn)
	}
	return err
}
