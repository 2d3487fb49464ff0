package main

import (
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/internal/config"
	"github.com/layerfs/layerfs/layers/registry"
)

// registryFlags are those of every verb that talks to a registry.
func registryFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "creds", Usage: "`USER[:PASSWORD]` instead of stored credentials"},
		&cli.StringFlag{Name: "authfile", Usage: "`FILE` with credentials", EnvVars: []string{"REGISTRY_AUTH_FILE"}},
		&cli.StringFlag{Name: "cert-dir", Usage: "`DIR` with certificates: ca.crt, client.cert, client.key"},
		&cli.BoolFlag{Name: "tls-verify", Value: true, Usage: "want a certificate that can be verified; --tls-verify=false also allows plain HTTP"},
		&cli.StringSliceFlag{Name: "insecure-registry", Usage: "`HOST[:PORT]|CIDR` that need not have a good certificate, nor TLS; can be repeated. Loopback addresses never need to"},
	}
}

// registryOptions reads those flags and the configuration.
func (e *env) registryOptions(c *cli.Context) (*registry.Options, error) {
	o := &registry.Options{
		AuthFile: c.String("authfile"), CertDir: c.String("cert-dir"),
		SkipTLSVerify: !c.Bool("tls-verify"), Insecure: c.StringSlice("insecure-registry"),
		UserAgent: "layerfs/" + buildVersion(),
	}
	if !c.IsSet("insecure-registry") {
		o.Insecure = e.conf.Get(config.Insecure).Values
	}
	if creds := c.String("creds"); creds != "" {
		user, password, _ := strings.Cut(creds, ":")
		if user == "" {
			return nil, usagef("--creds: want USER:PASSWORD")
		}
		o.Credentials = &registry.Credentials{Username: user, Password: password}
	}
	return o, nil
}
