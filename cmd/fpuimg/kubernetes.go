package main

import (
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
)

// expression is one requirement on a label: that it is true, or below a number.
type expression struct {
	key   string
	below int // 0: the label is true
}

func (e expression) yaml(indent string) string {
	if e.below > 0 {
		return fmt.Sprintf("%s- key: %s\n%s  operator: Lt\n%s  values: [%q]\n", indent, e.key, indent, indent, strconv.Itoa(e.below))
	}
	return fmt.Sprintf("%s- key: %s\n%s  operator: In\n%s  values: [\"true\"]\n", indent, e.key, indent, indent)
}

// requirements splits what is needed into labels that NFD gives, those of the local
// feature file, and names that a NodeFeatureRule alone sees.
func (n *needs) requirements() (labels, own []expression, hidden []string) {
	for _, flag := range n.Flags {
		switch name := nfdName(flag); {
		case name == "":
			own = append(own, expression{key: ownLabel + "cpuid." + flag})
		case slices.Contains(nfdHides, name):
			hidden = append(hidden, name)
		default:
			labels = append(labels, expression{key: nfdLabel + name})
		}
	}
	for f := range n.Components.All() {
		own = append(own, expression{key: ownLabel + componentLabel(f)})
	}
	if n.XSaveSize != 0 {
		own = append(own, expression{key: ownLabel + "xsave-size", below: n.XSaveSize + 1})
	}
	return labels, own, hidden
}

// kubernetes prints what is needed as a YAML document.
func (n *needs) kubernetes(w io.Writer, as string) {
	labels, own, hidden := n.requirements()
	fmt.Fprintf(w, "# %s\n", cli.Printable(n.path))
	for _, u := range n.Unknown {
		fmt.Fprintf(w, "# not known: %s\n", cli.Printable(u))
	}
	if n.MXCSR != 0 {
		fmt.Fprintf(w, "# no label says: MXCSR bits %#x\n", n.MXCSR)
	}
	if len(n.Possible) > 0 {
		fmt.Fprintf(w, "# perhaps: %s\n", strings.Join(n.Possible, " "))
	}
	name := labelName(n.path)
	switch as {
	case "affinity":
		if len(hidden) > 0 {
			fmt.Fprintf(w, "# no label says: %s; fpuimg need --as=nfd-rule makes one\n", strings.Join(hidden, " "))
		}
		if len(own) > 0 {
			fmt.Fprintf(w, "# labels %s* are those of fpuimg profile --format=nfd\n", ownLabel)
		}
		if len(labels)+len(own) == 0 {
			fmt.Fprintln(w, "{}")
			return
		}
		fmt.Fprint(w, "nodeAffinity:\n  requiredDuringSchedulingIgnoredDuringExecution:\n    nodeSelectorTerms:\n    - matchExpressions:\n")
		for _, e := range append(labels, own...) {
			fmt.Fprint(w, e.yaml("      "))
		}
	case "nfd-rule":
		fmt.Fprintf(w, "apiVersion: nfd.k8s-sigs.io/v1alpha1\nkind: NodeFeatureRule\nmetadata:\n  name: fpuimg-%s\nspec:\n  rules:\n  - name: runs-%s\n    labels:\n      fpuimg-runs-%s: \"true\"\n    matchFeatures:\n", name, name, name)
		if len(n.Flags) == 0 && len(own) == 0 {
			fmt.Fprint(w, "    - feature: cpu.cpuid\n      matchExpressions: {}\n")
		}
		if names := slices.Sorted(slices.Values(nfdFlagNames(n.Flags))); len(names) > 0 {
			fmt.Fprint(w, "    - feature: cpu.cpuid\n      matchExpressions:\n")
			for _, name := range names {
				fmt.Fprintf(w, "        %s: {op: Exists}\n", name)
			}
		}
		if len(own) > 0 {
			fmt.Fprint(w, "    - feature: local.feature\n      matchExpressions:\n")
			for _, e := range own {
				key := strings.TrimPrefix(e.key, "feature.node.kubernetes.io/")
				if e.below > 0 {
					fmt.Fprintf(w, "        %s: {op: Lt, value: [%q]}\n", key, strconv.Itoa(e.below))
				} else {
					fmt.Fprintf(w, "        %s: {op: IsTrue}\n", key)
				}
			}
		}
	case "annotations":
		for _, a := range n.annotations() {
			fmt.Fprintf(w, "%s: %q\n", a[0], a[1])
		}
	}
}

// nfdFlagNames are the names of those flags that have one.
func nfdFlagNames(flags []string) (names []string) {
	for _, flag := range flags {
		if name := nfdName(flag); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// annotationPrefix is that of the annotations of an OCI image that holds a checkpoint,
// beside the org.criu.checkpoint.* that checkpointctl writes.
const annotationPrefix = "io.github.fpuimg.need."

// annotations are what is needed as annotations of an OCI image: name and value.
func (n *needs) annotations() [][2]string {
	list := [][2]string{
		{"components", strings.Join(n.Components.Names(), ",")},
		{"flags", strings.Join(n.Flags, ",")},
		{"possible-flags", strings.Join(n.Possible, ",")},
	}
	if level := n.levelOf(); level != "" {
		list = append(list, [2]string{"level", level})
	}
	if n.XSaveSize != 0 {
		list = append(list, [2]string{"xsave-size", strconv.Itoa(n.XSaveSize)})
	}
	list = append(list, [2]string{"checked", strconv.FormatBool(len(n.Unknown) == 0)})
	for i := range list {
		list[i][0] = annotationPrefix + list[i][0]
	}
	return list
}

// labelName makes a name that Kubernetes takes of a path: lower-case letters, digits and
// dashes, 40 at most (RFC 1123).
func labelName(path string) string {
	if path == "." || path == "" {
		path = "checkpoint"
	}
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '-'
	}, filepath.Base(filepath.Clean(path)))
	name = strings.Trim(name[:min(len(name), 40)], "-")
	if name == "" {
		return "checkpoint"
	}
	return name
}
