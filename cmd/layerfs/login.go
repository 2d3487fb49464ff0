package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/layerfs/layerfs/layers/registry"
)

func loginCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "login", Category: "Images in and out",
		Usage:     "store the credentials of a registry",
		UsageText: "layerfs login [flags] HOST[:PORT]",
		Description: `Asks the registry whether the credentials are good and stores them where podman,
buildah and skopeo find them too. What is missing is asked for.

Examples:
   layerfs login -u me registry.example.com
   layerfs login -u me --password-stdin localhost:5000 <secret`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "username", Aliases: []string{"u"}, Usage: "`NAME` of the user"},
			&cli.StringFlag{Name: "password", Aliases: []string{"p"}, Usage: "`PASSWORD`; others can see it in the list of processes"},
			&cli.BoolFlag{Name: "password-stdin", Usage: "read the password from standard input"},
		}, registryFlags()...),
		Action: func(c *cli.Context) error {
			if err := argCount(c, 1, 1, "the HOST of a registry"); err != nil {
				return err
			}
			o, err := e.registryOptions(c)
			if err != nil {
				return err
			}
			if o.Credentials == nil {
				if o.Credentials, err = e.askCredentials(c); err != nil {
					return err
				}
			}
			client, err := registry.New(o)
			if err != nil {
				return err
			}
			where, err := client.Login(c.Context, c.Args().First())
			if err != nil {
				return err
			}
			fmt.Fprintf(e.stdout, "Logged in to %s; the credentials are in %s\n", c.Args().First(), where)
			return nil
		},
	}
}

func logoutCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "logout", Category: "Images in and out",
		Usage:     "remove the stored credentials of a registry",
		UsageText: "layerfs logout [--all] [HOST[:PORT]]",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "authfile", Usage: "`FILE` with credentials", EnvVars: []string{"REGISTRY_AUTH_FILE"}},
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "remove those of all registries"},
		},
		Action: func(c *cli.Context) error {
			host := c.Args().First()
			if (host == "") != c.Bool("all") || c.Args().Len() > 1 {
				return usagef("needs the HOST of one registry, or --all")
			}
			client, err := registry.New(&registry.Options{AuthFile: c.String("authfile")})
			if err != nil {
				return err
			}
			return client.Logout(host)
		},
	}
}

// askCredentials takes the user name and the password from flags, standard input or
// the person at the terminal.
func (e *env) askCredentials(c *cli.Context) (*registry.Credentials, error) {
	cred := &registry.Credentials{Username: c.String("username"), Password: c.String("password")}
	onTerminal := isTerminal(e.stdin)
	in := bufio.NewReader(e.in)
	if cred.Username == "" {
		if !onTerminal || c.Bool("password-stdin") {
			return nil, usagef("name the user with -u")
		}
		fmt.Fprint(e.stderr, "User name: ")
		line, err := in.ReadString('\n')
		if err != nil {
			return nil, err
		}
		cred.Username = strings.TrimSpace(line)
	}
	switch {
	case c.Bool("password-stdin"):
		raw, err := io.ReadAll(io.LimitReader(in, 64<<10))
		cred.Password = strings.TrimRight(string(raw), "\r\n")
		return cred, err
	case cred.Password != "":
	case !onTerminal:
		return nil, usagef("give the password with --password-stdin")
	default:
		var err error
		cred.Password, err = askPassword(e.stdin, e.stderr)
		return cred, err
	}
	return cred, nil
}

// askPassword reads a line that the terminal does not show.
func askPassword(in *os.File, out io.Writer) (string, error) {
	fmt.Fprint(out, "Password: ")
	raw, err := term.ReadPassword(int(in.Fd()))
	fmt.Fprintln(out)
	return string(raw), err
}
