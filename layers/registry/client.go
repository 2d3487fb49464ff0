package registry

import (
	"os"
	"sync"
	"time"

	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/pkg/docker/config"
	"go.podman.io/image/v5/types"

	"github.com/layerfs/layerfs/layers/policy"
)

// Options change how registries are reached; nil means the defaults.
type Options struct {
	// Credentials are used for all registries instead of stored ones.
	Credentials *Credentials
	// AuthFile is the file of credentials; "" means REGISTRY_AUTH_FILE, or else the
	// usual places of containers tools and docker.
	AuthFile string
	// CertDir holds certificates (*.crt) and client certificates (*.cert, *.key); ""
	// means the directory of the registry below certs.d.
	CertDir string
	// SkipTLSVerify accepts any certificate, and plain HTTP, of every registry.
	SkipTLSVerify bool
	// Insecure are registries, as HOST[:PORT] or as a range of addresses in CIDR
	// notation, of which any certificate and plain HTTP are accepted, besides those that
	// registries.conf says. The loopback addresses always are.
	Insecure []string
	// RegistriesConf is the configuration file; "" means CONTAINERS_REGISTRIES_CONF, or
	// else the usual places.
	RegistriesConf string
	// RegistriesDir is the directory of signature storages; "" means the usual places.
	RegistriesDir string
	// Policy is the file of the signature policy; "" means the usual places.
	Policy string
	// UserAgent is what servers are told about the program.
	UserAgent string
	// Parallel is how many layers are transferred at once; 0 means 4.
	Parallel int
	// Stall is how long a server may send nothing; 0 means a minute.
	Stall time.Duration
	// Progress is called, from several goroutines, as layers are transferred.
	Progress func(Progress)
	// Backoff is the first pause before something is tried again, doubled each time; 0
	// means half a second.
	Backoff time.Duration
}

// Credentials are a user name and a password, or a token that stands for both.
type Credentials struct {
	Username, Password string
}

// A Progress tells how far the transfer of one layer has come.
type Progress struct {
	// Index is the layer's place in the manifest, of Count.
	Index, Count int
	// Done of Total bytes are here, of which Kept were here before.
	Done, Total, Kept int64
	// Note says why nothing is transferred, such as that it is there already.
	Note string
}

// A Client reaches registries. Its methods may be called from several goroutines.
type Client struct {
	o        Options
	sys      *types.SystemContext
	insecure insecureSet
	policy   *policy.Policy

	mu    sync.Mutex // guards hosts
	hosts map[hostKey]*host
}

const (
	defaultParallel = 4
	defaultStall    = time.Minute
	defaultBackoff  = 500 * time.Millisecond
)

// New returns a client. It returns an error for options that cannot be understood.
func New(o *Options) (*Client, error) {
	c := &Client{hosts: map[hostKey]*host{}}
	if o != nil {
		c.o = *o
	}
	if c.o.Parallel <= 0 {
		c.o.Parallel = defaultParallel
	}
	if c.o.Stall <= 0 {
		c.o.Stall = defaultStall
	}
	if c.o.Backoff <= 0 {
		c.o.Backoff = defaultBackoff
	}
	if c.o.AuthFile == "" {
		c.o.AuthFile = os.Getenv("REGISTRY_AUTH_FILE")
	}
	if c.o.UserAgent == "" {
		c.o.UserAgent = "layerfs"
	}
	c.sys = &types.SystemContext{
		AuthFilePath: c.o.AuthFile, SystemRegistriesConfPath: c.o.RegistriesConf,
	}
	if c.o.RegistriesConf == "" && os.Getenv("CONTAINERS_REGISTRIES_CONF") != "" {
		c.sys.SystemRegistriesConfPath = os.Getenv("CONTAINERS_REGISTRIES_CONF")
	}
	var err error
	if c.insecure, err = newInsecureSet(c.o.Insecure); err != nil {
		return nil, err
	}
	c.policy, err = policy.Load(c.o.Policy)
	return c, err
}

// credentials returns what is stored for a repository, or nil.
func (c *Client) credentials(named reference.Named) (*types.DockerAuthConfig, error) {
	if c.o.Credentials != nil {
		return &types.DockerAuthConfig{Username: c.o.Credentials.Username, Password: c.o.Credentials.Password}, nil
	}
	auth, err := config.GetCredentialsForRef(c.sys, named)
	if err != nil || auth == (types.DockerAuthConfig{}) {
		return nil, err
	}
	return &auth, nil
}
