package main

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/fatih/color"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	"github.com/fpuimg/fpuimg/cmd/internal/view"
	"github.com/fpuimg/fpuimg/convert/compat"
)

// The page of check --html: one file, which asks nobody for anything.
var (
	//go:embed page.html
	pageHTML string
	//go:embed page.css
	pageCSS string
	//go:embed page.js
	pageJS string
)

// pageData is what the page's script reads. What many cells share stands once, and they
// name it by its index.
type pageData struct {
	Hosts    []pageHost    `json:"hosts"`
	Kinds    []pageKind    `json:"kinds"`
	Images   []pageImage   `json:"images"`
	Results  []pageResult  `json:"results"`
	Findings []pageFinding `json:"findings"`
}

type pageHost struct {
	Name  string `json:"name"`
	Title string `json:"title"`
}

type pageKind struct {
	Word    string `json:"word"`
	Meaning string `json:"meaning"`
	Colour  string `json:"colour"` // a class of the style sheet
}

type pageImage struct {
	Path  string `json:"path"`
	Error string `json:"error"`
	Tasks string `json:"tasks"`
	Cells []int  `json:"cells"` // of Results, by machine
}

type pageResult struct {
	Kind     cellKind `json:"kind"`
	Verdict  string   `json:"verdict"`
	Tag      string   `json:"tag"`
	CRIU     string   `json:"criu"`
	Lost     []string `json:"lost"`
	Findings []int    `json:"findings"`
	More     []string `json:"more"`
}

type pageFinding struct {
	Severity string      `json:"severity"`
	Rule     compat.Rule `json:"rule"`
	Where    string      `json:"where"`
	Reason   string      `json:"reason"`
	Hint     string      `json:"hint"`
	Command  string      `json:"command"`
}

// pageMaker gathers the images, one after the other.
type pageMaker struct {
	data     pageData
	findings map[pageFinding]int
	results  map[string]int // by their JSON
}

func newPageMaker(hosts []*host) *pageMaker {
	p := &pageMaker{findings: map[pageFinding]int{}, results: map[string]int{}}
	p.data = pageData{Images: []pageImage{}, Results: []pageResult{}, Findings: []pageFinding{}}
	for _, h := range hosts {
		title := cli.Printable(h.Name)
		if h.ModelName != "" && h.ModelName != h.Name {
			title += ", " + cli.Printable(h.ModelName)
		}
		p.data.Hosts = append(p.data.Hosts, pageHost{cli.Printable(h.short), title})
	}
	for _, k := range cellKinds {
		colour := "ok"
		switch k.style[0] {
		case color.FgYellow:
			colour = "mild"
		case color.FgRed:
			colour = "bad"
		}
		p.data.Kinds = append(p.data.Kinds, pageKind{k.word, k.meaning, colour})
	}
	return p
}

func (p *pageMaker) add(img *checked) error {
	out := pageImage{Path: cli.Printable(img.path), Tasks: cli.Printable(strings.Join(img.tasks, ", ")), Cells: []int{}}
	if len(img.errs) > 0 {
		out.Error = cli.Printable(img.errs[0].Error())
	}
	for i := range p.data.Hosts {
		r := pageResult{Kind: unreadable.kind, Tag: unreadable.tag, Verdict: compat.Damaged.String(), Lost: []string{}, Findings: []int{}, More: []string{}}
		if img.results != nil {
			r = p.result(img, img.results[i])
		}
		key, err := json.Marshal(r)
		if err != nil {
			return err
		}
		n, ok := p.results[string(key)]
		if !ok {
			n = len(p.data.Results)
			p.results[string(key)] = n
			p.data.Results = append(p.data.Results, r)
		}
		out.Cells = append(out.Cells, n)
	}
	p.data.Images = append(p.data.Images, out)
	return nil
}

func (p *pageMaker) result(img *checked, r *result) pageResult {
	c := r.cell()
	out := pageResult{Kind: c.kind, Tag: c.tag, Verdict: r.Verdict.String() + unchecked(r), Lost: []string{}, Findings: []int{}, More: []string{}}
	if !foreign(img.kind) {
		pr := r.Predict(compat.CapDefault)
		out.CRIU = fmt.Sprintf("CRIU %v: %s", r.Judgement.CRIU(), pr.Outcome)
		if pr.Reason != "" {
			out.CRIU += ", " + cli.Printable(pr.Reason)
		}
	}
	for _, group := range view.Threads(r.Threads, func(r *compat.Report) string { return strings.Join(compat.LossNames(r.Lost), ", ") }) {
		if names := compat.LossNames(group.Lost); len(names) > 0 {
			out.Lost = append(out.Lost, strings.Join(names, ", ")+" of "+view.Noun(len(group.TIDs), "thread")+" "+view.Range(group.TIDs))
		}
	}
	told, more := view.Tell(r.Tasks, r.Threads, r.Findings, r.advice)
	for _, t := range told {
		f := pageFinding{t.Severity.String(), t.Rule, cli.Printable(t.Where), cli.Printable(t.Reason), cli.Printable(t.Hint), cli.Printable(t.Command)}
		n, ok := p.findings[f]
		if !ok {
			n = len(p.data.Findings)
			p.findings[f] = n
			p.data.Findings = append(p.data.Findings, f)
		}
		out.Findings = append(out.Findings, n)
	}
	out.More = append(out.More, more...)
	return out
}

// page returns the page. The data is JSON in which no tag can begin, and the policy lets
// nothing run but the page's own script.
func (p *pageMaker) page() ([]byte, error) {
	data, err := json.Marshal(p.data) // escapes <, > and &
	if err != nil {
		return nil, err
	}
	hash := func(text string) string {
		sum := sha256.Sum256([]byte(text))
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	return []byte(strings.NewReplacer(
		"@POLICY@", "default-src 'none'; base-uri 'none'; form-action 'none'; style-src "+hash(pageCSS)+"; script-src "+hash(pageJS),
		"@STYLE@", pageCSS, "@SCRIPT@", pageJS, "@DATA@", string(data)).Replace(pageHTML)), nil
}
