package main

import (
	"strings"

	"github.com/urfave/cli/v2"
)

// appHelp is the library's template for --help with our tables below it.
func appHelp() string {
	return strings.TrimRight(cli.AppHelpTemplate, "\n") + `

EXIT CODES:
` + exitHelp() + `
FILES:
   A store is a directory of plain files that belong to its user. Any number of
   layerfs commands, mounts and programs may use it at once. "layerfs info" shows
   where it is; rm -rf removes it.

   Run "layerfs VERB --help" for examples of a verb and "layerfs doctor" when a
   mount does not work.
`
}

func helpCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "help", Usage: "show the help of layerfs or of a verb", ArgsUsage: "[VERB]",
		Category: "Conveniences",
		Action: func(c *cli.Context) error {
			if err := argCount(c, 0, 1, ""); err != nil {
				return err
			}
			if !c.Args().Present() {
				return cli.ShowAppHelp(c)
			}
			cmd := commandOf(c.App.Commands, c.Args().First())
			if cmd == nil {
				return usagef("unknown verb %q", c.Args().First())
			}
			cli.HelpPrinter(e.stdout, cli.CommandHelpTemplate, cmd)
			return nil
		},
	}
}
