package main

import (
	"context"
	"errors"
	"io"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
)

func bigdataCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "bigdata", Category: "Items",
		Usage:     "keep named data of any size beside an image, layer record or container",
		UsageText: "layerfs bigdata ls NAME | get NAME KEY | set NAME KEY FILE|- | rm NAME KEY",
		Description: `KEY may be any text, with slashes or anything else: it is never a path. The data goes
with the item when that is removed.

Examples:
   layerfs bigdata set debian:12 signature debian.sig
   layerfs bigdata ls debian:12
   layerfs bigdata get debian:12 signature > debian.sig
   layerfs bigdata rm debian:12 signature`,
		Action:      needsVerb("ls, get, set or rm"),
		Subcommands: []*cli.Command{bigdataLsCommand(e), bigdataGetCommand(e), bigdataSetCommand(e), bigdataRmCommand(e)},
	}
}

// A dataReport is a line of the list of big data.
type dataReport struct {
	Key    string        `json:"key"`             // as a text
	Bytes  []byte        `json:"bytes,omitempty"` // base64; of a key that is no UTF-8 text
	Size   int64         `json:"size"`
	Digest digest.Digest `json:"digest"`
	Stored time.Time     `json:"stored"`
}

func reportData(ctx context.Context, st *layers.Store, item string) ([]dataReport, error) {
	list, err := st.ListBigData(ctx, item)
	out := []dataReport{}
	for _, d := range list {
		r := dataReport{Key: string(d.Key), Size: d.Size, Digest: d.Digest, Stored: d.Stored}
		if quoted := strconv.Quote(r.Key); len(quoted) != len(r.Key)+2 {
			r.Key, r.Bytes = quoted, d.Key
		}
		out = append(out, r)
	}
	return out, err
}

func bigdataLsCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "ls", Usage: "list keys, sizes and digests", UsageText: "layerfs bigdata ls [--format json] NAME",
		Description: `A key with other than printable characters is shown quoted, as in Go; JSON has it in
base64 too, as "bytes".`,
		Flags:        []cli.Flag{formatFlag()},
		BashComplete: completeNames(e),
		Action: func(c *cli.Context) error {
			if err := argCount(c, 1, 1, "NAME"); err != nil {
				return err
			}
			return withStore(c, e.viewStore, func(ctx context.Context, st *layers.Store) error {
				list, err := reportData(ctx, st, c.Args().First())
				if err != nil {
					return err
				}
				return printList(e.stdout, c.String("format"), list, table[dataReport]{
					header: []string{"KEY", "SIZE", "DIGEST"},
					row:    func(d dataReport) []string { return []string{d.Key, size(d.Size), string(d.Digest)} },
				})
			})
		},
	}
}

func bigdataGetCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "get", Usage: "write the data to standard output", UsageText: "layerfs bigdata get NAME KEY",
		BashComplete: completeNames(e),
		Action: itemAction(e.viewStore, 2, 2, "NAME and KEY", func(ctx context.Context, st *layers.Store, args cli.Args) (err error) {
			_, r, err := st.BigData(ctx, args.Get(0), []byte(args.Get(1)))
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, r.Close()) }()
			_, err = io.Copy(e.stdout, r)
			return err
		}),
	}
}

func bigdataSetCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "set", Usage: "store a file or standard input under the key", UsageText: "layerfs bigdata set NAME KEY FILE|-",
		BashComplete: completeNames(e),
		Action: itemAction(e.openStore, 3, 3, "NAME, KEY and FILE", func(ctx context.Context, st *layers.Store, args cli.Args) error {
			return e.withInput(args.Get(2), func(in io.Reader) error {
				_, err := st.SetBigData(ctx, args.Get(0), []byte(args.Get(1)), in)
				return err
			})
		}),
	}
}

func bigdataRmCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "rm", Usage: "remove the data of a key", UsageText: "layerfs bigdata rm NAME KEY",
		BashComplete: completeNames(e),
		Action: itemAction(e.openStore, 2, 2, "NAME and KEY", func(ctx context.Context, st *layers.Store, args cli.Args) error {
			return st.RemoveBigData(ctx, args.Get(0), []byte(args.Get(1)))
		}),
	}
}
