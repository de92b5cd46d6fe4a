package level

import (
	"slices"
	"strings"

	"github.com/fpuimg/fpuimg/codec/facts"
	"github.com/fpuimg/fpuimg/codec/program"
	"github.com/fpuimg/fpuimg/convert/compat"
)

// largestEnd is where the components end that lazy binding saves on any CPU: AVX-512, as
// Intel places it, in bytes.
const largestEnd = 2688

// saving plans what lazy binding saves registers with: the functions of the loader that
// the host cannot run are replaced, and the size of the buffer fits what it writes.
func (t *task) saving() {
	host := t.plan.options.Host
	xsave := host.XSave != nil && *host.XSave
	if has, _ := host.HasFlag("xsave"); has && host.XSave == nil {
		xsave = true
	}
	runs := func(kind facts.SaveKind) bool {
		switch kind {
		case facts.XSaveC:
			has, _ := host.HasFlag("xsavec")
			return xsave && has
		case facts.XSave:
			return xsave
		}
		return true
	}
	best := facts.FXSave
	if xsave {
		best = facts.XSave
	}
	functions := slices.Clone(t.saves)
	place := map[bool]uint64{} // of the function that replaces, by TLS
	functions = slices.DeleteFunc(functions, func(f program.SaveFunction) bool {
		if missing := t.plan.lacks(t.Reaches(f.Address)); f.Profile && len(missing) > 0 {
			t.matches[f.Address] = match{what: Trampoline, ambiguous: true}
		}
		return f.Profile
	})
	for _, f := range functions {
		if f.Kind == best {
			if place[f.TLS] != 0 {
				t.refuse(GlibcUnknown, t.Loader(), "two of its functions save registers with %s: %s and %s", best, t.Place(place[f.TLS]), t.Place(f.Address))
			}
			place[f.TLS] = f.Address
		}
	}
	sizes := []uint64{t.had.SaveAddress()}
	known := false
	for _, f := range functions {
		for _, at := range f.Sizes {
			known = known || at == sizes[0]
			if !slices.Contains(sizes, at) {
				sizes = append(sizes, at)
			}
		}
		switch {
		case runs(f.Kind):
		case place[f.TLS] == 0:
			t.refuse(GlibcUnknown, t.Loader(), "it has no function like %s that saves registers with %s", t.Place(f.Address), strings.ToUpper(string(best)))
		default:
			t.matches[f.Address] = match{what: Trampoline, to: place[f.TLS]}
		}
	}
	if len(functions) > 0 && !known {
		t.refuse(GlibcUnknown, t.Loader(), "its lazy binding reads the size of its buffer at another place than %#x", sizes[0])
	}
	if len(functions) == 0 && t.Save != nil {
		t.refuse(GlibcUnknown, t.Loader(), "its functions that save registers were not found")
	}
	switch have := t.had.SaveSize(); {
	case have == 0: // it uses FXSAVE, and goes on to
	case !xsave: // not 0 would make it use XSAVE for what it opens later
		t.goal = t.goal.WithSaveSize(0)
	case runs(facts.XSaveC) && (t.Save == nil || t.Save.Kind == facts.XSaveC):
	case isHome(host, t.Source.CPU): // it is what glibc found there
	default:
		end, ok := compat.ComponentsEnd(host)
		if !ok {
			end = largestEnd
		}
		need := (uint64(facts.SaveOffset+end) + 63) &^ 63
		if have < need {
			t.goal = t.goal.WithSaveSize(need)
		}
		for _, at := range sizes[1:] {
			if size, ok := t.Word(at); !ok {
				t.refuse(GlibcUnknown, t.Loader(), "the size of a buffer at %#x is not there", at)
			} else if size < need {
				t.word(SaveSize, at, le64(size), le64(need))
			}
		}
	}
}

// vectors plans OpenSSL's record of the CPU, and refuses those of others.
func (t *task) vectors() {
	found := map[*facts.Object]*program.Vector{}
	for _, o := range t.Objects {
		if !isOpenSSL(o) {
			continue
		}
		v, why := t.Vector(o, t.had)
		if v == nil {
			if t.lessens() {
				t.refuse(CachedCPUID, o, "OpenSSL's record of the CPU %s", why)
			}
			continue
		}
		found[o] = v
		for _, w := range v.On(t.plan.options.Host) {
			t.word(OpenSSL, w.Address, w.Old, w.New)
		}
	}
	for _, c := range t.Caches {
		if v := found[c.Object]; v != nil && v.Has(c.Address) {
			continue
		}
		if missing := t.plan.lacksISA(c.Flags); len(missing) > 0 {
			t.refuse(CachedCPUID, c.Object, "it keeps what CPUID said when the program started, with %s", some(missing))
		}
	}
}

// some lists names, the rest of a long list as a count.
func some(names []string) string {
	const most = 6
	if len(names) > most {
		return strings.Join(names[:most], " ") + " and more"
	}
	return strings.Join(names, " ")
}
