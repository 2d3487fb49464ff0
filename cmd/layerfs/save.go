package main

import "github.com/urfave/cli/v2"

func saveCommand(e *env) *cli.Command {
	return &cli.Command{Name: "save", Action: func(*cli.Context) error { return nil }}
}
