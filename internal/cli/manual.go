package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

// Manual is the text of one command. --help and the man page are both made from
// it, so neither can be newer than the other.
//
// Sections are paragraphs separated by blank lines. A line that starts with four
// spaces is an example and is kept as it is; "term: text" lines that start with two
// spaces are a list.
type Manual struct {
	Name     string // "fpuimg show"
	Short    string // one line, no full stop
	Synopsis string // after the name
	Body     string
	Exits    string
	See      []string // other pages
	Flags    *pflag.FlagSet
}

// Page returns the man page's name: "fpuimg-show".
func (m *Manual) Page() string { return strings.ReplaceAll(m.Name, " ", "-") }

// Text returns the manual as --help prints it.
func (m *Manual) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s - %s\n\nUsage: %s %s\n\n%s\n", m.Name, m.Short, m.Name, m.Synopsis, strings.TrimSpace(m.Body))
	if m.Flags != nil && m.Flags.HasFlags() {
		fmt.Fprintf(&b, "\nOptions:\n%s", m.Flags.FlagUsagesWrapped(80))
	}
	if m.Exits != "" {
		fmt.Fprintf(&b, "\nExit status:\n%s\n", strings.Trim(m.Exits, "\n"))
	}
	return b.String()
}

// Roff returns the manual as a man page of section 1.
func (m *Manual) Roff() string {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH %s 1\n.SH NAME\n%s \\- %s\n", strings.ToUpper(m.Page()), m.Page(), roff(m.Short))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n%s\n.SH DESCRIPTION\n", m.Name, roff(m.Synopsis))
	roffBody(&b, m.Body)
	if m.Flags != nil && m.Flags.HasFlags() {
		b.WriteString(".SH OPTIONS\n")
		m.Flags.VisitAll(func(f *pflag.Flag) {
			if f.Hidden {
				return
			}
			kind, usage := pflag.UnquoteUsage(f)
			name := "--" + f.Name
			if f.Shorthand != "" {
				name = "-" + f.Shorthand + ", " + name
			}
			switch {
			case f.NoOptDefVal != "" && kind != "":
				name += "[=" + kind + "]"
			case kind != "":
				name += "=" + kind
			}
			fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", roff(name), roff(usage))
		})
	}
	if m.Exits != "" {
		b.WriteString(".SH EXIT STATUS\n")
		roffBody(&b, m.Exits)
	}
	if len(m.See) > 0 {
		b.WriteString(".SH SEE ALSO\n")
		for i, page := range m.See {
			sep := " ,"
			if i == len(m.See)-1 {
				sep = ""
			}
			fmt.Fprintf(&b, ".BR %s (1)%s\n", roff(page), sep)
		}
	}
	return b.String()
}

func roffBody(b *strings.Builder, body string) {
	first, example := true, false
	for line := range strings.SplitSeq(strings.Trim(body, "\n"), "\n") {
		code := strings.HasPrefix(line, "    ")
		if code != example {
			if code {
				b.WriteString(".PP\n.nf\n.RS 4\n")
			} else {
				b.WriteString(".RE\n.fi\n")
			}
			example = code
		}
		switch term, text, isTerm := strings.Cut(strings.TrimPrefix(line, "  "), "  "); {
		case code:
			b.WriteString(roff(line[4:]) + "\n")
		case line == "":
			if !first {
				b.WriteString(".PP\n")
			}
		case strings.HasPrefix(line, "  ") && isTerm:
			fmt.Fprintf(b, ".TP\n.B %s\n%s\n", roff(term), roff(strings.TrimSpace(text)))
		default:
			b.WriteString(roff(strings.TrimSpace(line)) + "\n")
		}
		first = false
	}
	if example {
		b.WriteString(".RE\n.fi\n")
	}
}

// roff escapes what troff would take for its own.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}
