package cli

import (
	"fmt"
	"iter"
	"strings"

	"github.com/spf13/pflag"
)

// Manual is the text of one command. --help and the man page are both made from
// it, so neither can be newer than the other.
//
// Body and Exits are blocks separated by blank lines. A block of lines that start
// with four spaces is an example and is kept as it is; one of "term  text" lines
// that start with two spaces is a list; any other is a paragraph.
type Manual struct {
	Name     string // "fpuimg show"
	Short    string // one line, no full stop
	Synopsis string // after the name
	Body     string
	Exits    string
	See      []string // other pages, "fpuimg-show" or, of another section, "criu(8)"
	Flags    *pflag.FlagSet
}

// Page returns the man page's name: "fpuimg-show".
func (m *Manual) Page() string { return strings.ReplaceAll(m.Name, " ", "-") }

// Text returns the manual as --help prints it.
func (m *Manual) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s - %s\n\nUsage: %s %s\n\n%s\n", m.Name, m.Short, m.Name, m.Synopsis, strings.Trim(m.Body, "\n"))
	if options := m.options(); len(options) > 0 {
		width := 0
		for _, o := range options {
			width = max(width, len(o.spelling()))
		}
		b.WriteString("\nOptions:\n")
		for _, o := range options {
			head := o.spelling()
			for _, line := range Wrap(strings.Fields(o.usage), 80-width-4) {
				fmt.Fprintf(&b, "  %-*s  %s\n", width, head, line)
				head = ""
			}
		}
	}
	if m.Exits != "" {
		fmt.Fprintf(&b, "\nExit status:\n%s\n", strings.Trim(m.Exits, "\n"))
	}
	return b.String()
}

// option is a flag as the manual names it.
type option struct {
	names    string // "--as" or "-o, --output"
	value    string // "LANES"; "" for a switch
	optional bool   // the value may be left out
	usage    string
}

func (o *option) spelling() string {
	switch {
	case o.value == "":
		return o.names
	case o.optional:
		return o.names + "[=" + o.value + "]"
	}
	return o.names + "=" + o.value
}

func (m *Manual) options() []option {
	var out []option
	if m.Flags != nil {
		for _, o := range options(m.Flags) {
			out = append(out, o)
		}
	}
	return out
}

// options yields the flags that are not hidden.
func options(fs *pflag.FlagSet) iter.Seq2[*pflag.Flag, option] {
	return func(yield func(*pflag.Flag, option) bool) {
		fs.VisitAll(func(f *pflag.Flag) {
			if f.Hidden {
				return
			}
			o := option{names: "--" + f.Name, optional: f.NoOptDefVal != ""}
			if f.Shorthand != "" {
				o.names = "-" + f.Shorthand + ", " + o.names
			}
			o.value, o.usage = pflag.UnquoteUsage(f)
			o.value = strings.ToUpper(o.value)
			if f.Value.Type() == "bool" {
				o.value = ""
			}
			yield(f, o)
		})
	}
}

// Wrap breaks words into lines of at most width columns, and gives at least one
// line. A longer word has a line of its own.
func Wrap(words []string, width int) []string {
	var lines []string
	line := ""
	for _, w := range words {
		switch {
		case line == "":
			line = w
		case len(line)+1+len(w) > width:
			lines = append(lines, line)
			line = w
		default:
			line += " " + w
		}
	}
	return append(lines, line)
}

// Roff returns the manual as a man page of section 1.
func (m *Manual) Roff() string {
	var b strings.Builder
	program, _, _ := strings.Cut(m.Name, " ")
	fmt.Fprintf(&b, ".TH %s 1 %s \"%s %s\" \"User Commands\"\n", strings.ToUpper(m.Page()), ReleaseDate, program, Release)
	b.WriteString(".nh\n.ad l\n") // neither hyphenated nor spread: commands stay as they are typed
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", roff(m.Page()), roff(m.Short))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n", roff(m.Name))
	roffLines(&b, roff(m.Synopsis))
	b.WriteString(".SH DESCRIPTION\n")
	roffBlocks(&b, m.Body)
	if options := m.options(); len(options) > 0 {
		b.WriteString(".SH OPTIONS\n")
		for _, o := range options {
			value := ""
			if o.value != "" {
				value = "=\\fI" + roff(o.value) + "\\fP"
			}
			if o.optional && value != "" {
				value = "[" + value + "]"
			}
			fmt.Fprintf(&b, ".TP\n\\fB%s\\fP%s\n", roff(o.names), value)
			roffText(&b, o.usage)
		}
	}
	if m.Exits != "" {
		b.WriteString(".SH EXIT STATUS\n")
		roffBlocks(&b, m.Exits)
	}
	if len(m.See) > 0 {
		b.WriteString(".SH SEE ALSO\n")
		for i, page := range m.See {
			name, section, ok := strings.Cut(page, "(")
			if !ok {
				section = "1)"
			}
			if i < len(m.See)-1 {
				section += ","
			}
			fmt.Fprintf(&b, ".BR %s (%s\n", roff(name), section)
		}
	}
	return b.String()
}

// roffBlocks writes paragraphs, lists and examples.
func roffBlocks(b *strings.Builder, body string) {
	for i, block := range strings.Split(strings.Trim(body, "\n"), "\n\n") {
		lines := strings.Split(block, "\n")
		example, list := strings.HasPrefix(block, "    "), strings.HasPrefix(block, "  ")
		if i > 0 && (example || !list) { // an item of a list brings its own space
			b.WriteString(".PP\n")
		}
		switch {
		case example:
			b.WriteString(".RS 4\n.nf\n")
			for _, line := range lines {
				line = roff(strings.TrimPrefix(line, "    "))
				if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
					line = `\&` + line
				}
				b.WriteString(line + "\n")
			}
			b.WriteString(".fi\n.RE\n")
		case list:
			width := 0
			for _, line := range lines {
				term, _, _ := strings.Cut(strings.TrimPrefix(line, "  "), "  ")
				width = max(width, len(term)+2)
			}
			var texts []string // of the item, over its lines
			flush := func() {
				roffText(b, strings.Join(texts, " "))
				texts = nil
			}
			for j, line := range lines {
				term, text, _ := strings.Cut(strings.TrimPrefix(line, "  "), "  ")
				if term != "" || j == 0 {
					if j > 0 {
						flush()
					}
					fmt.Fprintf(b, ".TP %d\n.B %s\n", width, roff(term))
				}
				texts = append(texts, strings.TrimSpace(text))
			}
			flush()
		default:
			roffText(b, block)
		}
	}
}

func roffText(b *strings.Builder, text string) { roffLines(b, roff(text)) }

// roffLines writes running text in lines that are short even with their escapes.
func roffLines(b *strings.Builder, text string) {
	for _, line := range Wrap(strings.Fields(text), 78) {
		if line[:1] == "." || line[:1] == "'" { // a control line, to troff
			line = `\&` + line
		}
		b.WriteString(line + "\n")
	}
}

// roff escapes what troff would take for its own. Every "-" is one that may be
// typed, not a hyphen.
func roff(s string) string { return strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s) }
