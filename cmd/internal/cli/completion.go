package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// Shells are those that there are completions for.
var Shells = []string{"bash", "zsh", "fish"}

// Values are what an option or an argument may be.
type Values struct {
	Words []string
	Files bool
	Dirs  bool
}

// Command is what has options to complete: one of the commands of a program, or, without
// a name, the program.
type Command struct {
	Name, About string
	Flags       *pflag.FlagSet // nil: none
	Args        Values
}

// Completions returns the script that completes a program in a shell. values has what
// each option takes, by its name. The error is a [*UsageError] if the shell is unknown.
func Completions(shell, program string, commands []Command, values map[string]Values) (string, error) {
	c := completions{program, commands, values}
	switch shell {
	case "bash":
		return c.bash(), nil
	case "zsh":
		return c.zsh(), nil
	case "fish":
		return c.fish(), nil
	}
	return "", Unknown(fmt.Errorf("unknown shell %q", shell), "", shell, "the shells", Shells)
}

type completions struct {
	program  string
	commands []Command
	values   map[string]Values
}

// names of the commands, none if the program has none.
func (c *completions) names() []string {
	var out []string
	for _, cmd := range c.commands {
		if cmd.Name != "" {
			out = append(out, cmd.Name)
		}
	}
	return out
}

// flag is an option as the scripts spell it.
type flag struct {
	option
	name, short string
	many        bool // it may be repeated
	Values
}

func (c *completions) flags(cmd Command) []flag {
	var out []flag
	if cmd.Flags == nil {
		return nil
	}
	for f, o := range options(cmd.Flags) {
		t := f.Value.Type()
		out = append(out, flag{o, f.Name, f.Shorthand, strings.HasSuffix(t, "Array") || strings.HasSuffix(t, "Slice"), c.values[f.Name]})
	}
	return append(out, flag{option: option{usage: "print the manual"}, name: "help"})
}

const bashScript = `# bash completion for PROGRAM; PROGRAM prints it

_PROGRAM() {
    local cur=${COMP_WORDS[COMP_CWORD]} key=${COMP_WORDS[COMP_CWORD-1]} words= paths=
    # Readline takes "=" for a word.
    if [[ $cur == = ]]; then
        key+== cur=
    elif [[ $key == = ]]; then
        key=${COMP_WORDS[COMP_CWORD-2]}=
    fi
    case $key in
VALUES    *)
ARGUMENTS        ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
    [[ ${COMPREPLY-} == *= ]] && compopt -o nospace
    if [[ $paths && ! ${COMPREPLY-} ]]; then
        compopt -o "$paths" # knows quotes, ~ and variables
    elif [[ $paths ]]; then
        compopt -o filenames
        mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -f -- "$cur")
    fi
    return 0
}
complete -F _PROGRAM PROGRAM
`

func (c *completions) bash() string {
	set := func(v Values) string {
		var out []string
		if len(v.Words) > 0 {
			out = append(out, "words='"+strings.Join(v.Words, " ")+"'")
		}
		switch {
		case v.Files:
			out = append(out, "paths=default")
		case v.Dirs:
			out = append(out, "paths=dirnames")
		}
		if out == nil {
			return ":"
		}
		return strings.Join(out, " ")
	}
	var values, arguments strings.Builder
	var done []string
	choice := func(cmd Command) string {
		var words []string
		for _, f := range c.flags(cmd) {
			if f.value == "" || f.optional {
				words = append(words, "--"+f.name)
			}
			if f.value == "" || slices.Contains(done, f.name) {
				continue
			}
			done = append(done, f.name)
			keys := "--" + f.name + "="
			if !f.optional {
				keys += " | --" + f.name
			}
			if f.short != "" {
				keys += " | -" + f.short
			}
			fmt.Fprintf(&values, "    %s) %s ;;\n", keys, set(f.Values))
		}
		for _, f := range c.flags(cmd) {
			if f.value != "" {
				words = append(words, "--"+f.name+"=")
			}
		}
		if words == nil {
			return set(cmd.Args)
		}
		return fmt.Sprintf("if [[ $cur == -* ]]; then words='%s'; else %s; fi", strings.Join(words, " "), set(cmd.Args))
	}
	if names := c.names(); names == nil {
		fmt.Fprintf(&arguments, "        %s\n", choice(c.commands[0]))
	} else {
		arguments.WriteString("        case ${COMP_WORDS[1]} in\n")
		for _, cmd := range c.commands {
			fmt.Fprintf(&arguments, "        %s) %s ;;\n", cmd.Name, choice(cmd))
		}
		fmt.Fprintf(&arguments, "        esac\n        ((COMP_CWORD == 1)) && words='%s --help --version' paths=\n", strings.Join(names, " "))
	}
	return strings.NewReplacer("PROGRAM", c.program, "VALUES", values.String(), "ARGUMENTS", arguments.String()).Replace(bashScript)
}

func (c *completions) zsh() string {
	quote := func(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
	colons := strings.NewReplacer(":", `\:`, "[", `\[`, "]", `\]`).Replace
	action := func(v Values) string {
		words := "(" + strings.Join(v.Words, " ") + ")"
		switch {
		case v.Dirs:
			return "_path_files -/"
		case v.Files && v.Words != nil:
			return `_alternative "words\:word\:` + words + `" "files\:file\:_files"`
		case v.Files:
			return "_files"
		case v.Words != nil:
			return words
		}
		return " "
	}
	arguments := func(indent string, cmd Command) string {
		b := indent + "_arguments"
		spec := func(s string) { b += " \\\n    " + indent + quote(s) }
		for _, f := range c.flags(cmd) {
			about, many, value := "["+colons(f.usage)+"]", "", ""
			if f.many {
				many = "*"
			}
			if f.value != "" {
				value = ":" + colons(f.value) + ":" + action(f.Values)
			}
			switch {
			case f.optional && f.value != "":
				spec(many + "--" + f.name + "=-" + about + ":" + value)
			case f.value != "":
				spec(many + "--" + f.name + "=" + about + value)
			default:
				spec("--" + f.name + about)
			}
			if f.short != "" {
				spec(many + "-" + f.short + about + value)
			}
		}
		if a := action(cmd.Args); a != " " {
			spec("*:argument:" + a)
		}
		return b
	}
	var b strings.Builder
	fmt.Fprintf(&b, "#compdef %s\n# zsh completion for %[1]s; %[1]s prints it\n\n_%[1]s() {\n", c.program)
	if c.names() == nil {
		b.WriteString(arguments("    ", c.commands[0]) + "\n")
	} else {
		b.WriteString("    if (( CURRENT == 2 )); then\n        local -a commands=(\n")
		for _, cmd := range c.commands {
			fmt.Fprintf(&b, "            %s\n", quote(cmd.Name+":"+colons(cmd.About)))
		}
		b.WriteString("        )\n        _describe command commands\n        return\n    fi\n    shift words\n    (( CURRENT-- ))\n    case $words[1] in\n")
		for _, cmd := range c.commands {
			fmt.Fprintf(&b, "    %s)\n%s\n        ;;\n", cmd.Name, arguments("        ", cmd))
		}
		b.WriteString("    esac\n")
	}
	fmt.Fprintf(&b, "}\nif [[ $funcstack[1] == _%s ]]; then\n    _%[1]s \"$@\"\nelse\n    compdef _%[1]s %[1]s\nfi\n", c.program)
	return b.String()
}

func (c *completions) fish() string {
	quote := func(s string) string {
		return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(s) + "'"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# fish completion for %s; %[1]s prints it\n\n", c.program)
	line := func(cmd Command, words ...string) {
		when := ""
		if cmd.Name != "" {
			when = " -n '__fish_seen_subcommand_from " + cmd.Name + "'"
		}
		fmt.Fprintf(&b, "complete -c %s%s %s\n", c.program, when, strings.Join(words, " "))
	}
	values := func(v Values) (out []string) {
		switch {
		case v.Dirs:
			return []string{"-f", "-a", "'(__fish_complete_directories)'"}
		case v.Words != nil:
			out = []string{"-a", quote(strings.Join(v.Words, " "))}
		}
		if !v.Files {
			out = append(out, "-f")
		}
		return out
	}
	for _, cmd := range c.commands {
		if cmd.Name != "" {
			fmt.Fprintf(&b, "complete -c %s -n __fish_use_subcommand -f -a %s -d %s\n", c.program, cmd.Name, quote(cmd.About))
		}
	}
	for _, cmd := range c.commands {
		for _, f := range c.flags(cmd) {
			words := []string{"-l", f.name, "-d", quote(f.usage)}
			if f.short != "" {
				words = append([]string{"-s", f.short}, words...)
			}
			if f.value != "" {
				words = append(words, values(f.Values)...)
				if !f.optional {
					words = append(words, "-r")
				}
			}
			line(cmd, words...)
		}
		if v := values(cmd.Args); v != nil {
			line(cmd, v...)
		}
	}
	return b.String()
}
