package main

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

func completionCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "completion", Category: "Conveniences",
		Usage:     "print a completion script for a shell",
		UsageText: "layerfs completion bash|zsh|fish",
		Description: `Examples:
   layerfs completion bash > ~/.local/share/bash-completion/completions/layerfs
   layerfs completion zsh > "${fpath[1]}/_layerfs"
   layerfs completion fish > ~/.config/fish/completions/layerfs.fish`,
		BashComplete: func(c *cli.Context) {
			fmt.Fprintln(c.App.Writer, "bash\nzsh\nfish")
		},
		Action: func(c *cli.Context) error {
			if err := argCount(c, 1, 1, "the name of a shell: bash, zsh or fish"); err != nil {
				return err
			}
			script, err := completionScript(c.App, c.Args().First())
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(e.stdout, script)
			return err
		},
	}
}

func completionScript(app *cli.App, shell string) (string, error) {
	switch shell {
	case "bash":
		return bashScript, nil
	case "zsh":
		return zshScript, nil
	case "fish":
		return app.ToFishCompletion()
	}
	return "", usagef("unknown shell %q; want bash, zsh or fish", shell)
}

// The scripts ask layerfs itself for the candidates. Once the line holds a "--"
// they do not: urfave/cli would run the verb. Names of images hold colons, at which
// bash splits words.
const bashScript = `# bash completion for layerfs
_layerfs() {
	local cur words cword word out
	if declare -F _init_completion >/dev/null; then
		_init_completion -n "=:" || return
	else
		cur=${COMP_WORDS[COMP_CWORD]} words=("${COMP_WORDS[@]}") cword=$COMP_CWORD
	fi
	local args=("${words[@]:1:cword-1}")
	for word in "${args[@]}"; do
		if [ "$word" = -- ]; then
			COMPREPLY=($(compgen -f -- "$cur"))
			return
		fi
	done
	if [ "$cur" = -- ]; then
		args+=(-)
	elif [[ $cur == -* ]]; then
		args+=("$cur")
	fi
	local IFS=$'\n'
	out=$("${words[0]}" "${args[@]}" --generate-bash-completion 2>/dev/null)
	COMPREPLY=($(compgen -W "$out" -- "$cur"))
	if [ ${#COMPREPLY[@]} -eq 0 ]; then
		compopt -o filenames 2>/dev/null
		COMPREPLY=($(compgen -f -- "$cur"))
	fi
	if declare -F __ltrim_colon_completions >/dev/null; then
		__ltrim_colon_completions "$cur"
	fi
}
complete -F _layerfs layerfs
`

const zshScript = `#compdef layerfs
_layerfs() {
	local cur=${words[CURRENT]} word
	local -a args opts
	args=("${(@)words[2,CURRENT-1]}")
	for word in $args; do
		if [[ $word == -- ]]; then
			_files
			return
		fi
	done
	if [[ $cur == -- ]]; then
		args+=(-)
	elif [[ $cur == -* ]]; then
		args+=("$cur")
	fi
	opts=("${(@f)$(${words[1]} $args --generate-bash-completion 2>/dev/null)}")
	compadd -a opts
	_files
}
if [ "$funcstack[1]" = _layerfs ]; then
	_layerfs "$@"
else
	compdef _layerfs layerfs
fi
`
