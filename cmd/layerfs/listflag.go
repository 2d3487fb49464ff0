package main

import (
	"encoding/json"
	"strings"

	"github.com/urfave/cli/v2"
)

// A stringList is the value of a flag that may be given several times. The library's
// own kind splits values at commas, which labels and JSON may hold.
type stringList []string

// wholeList begins the text of a whole list: the library sets the aliases of a flag
// to the text of its value.
const wholeList = "\x00list:"

// Set implements cli.Generic.
func (l *stringList) Set(value string) error {
	if text, ok := strings.CutPrefix(value, wholeList); ok {
		return json.Unmarshal([]byte(text), l)
	}
	*l = append(*l, value)
	return nil
}

// String implements cli.Generic.
func (l *stringList) String() string {
	if len(*l) == 0 {
		return ""
	}
	text, _ := json.Marshal(*l) // strings can always be encoded
	return wholeList + string(text)
}

// listFlag makes a flag whose values stringsOf returns.
func listFlag(name string, aliases []string, usage string) cli.Flag {
	return &cli.GenericFlag{Name: name, Aliases: aliases, Usage: usage, Value: &stringList{}}
}

func stringsOf(c *cli.Context, name string) []string {
	if l, ok := c.Generic(name).(*stringList); ok {
		return *l
	}
	return nil
}
