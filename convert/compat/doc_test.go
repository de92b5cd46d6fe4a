package compat_test

import (
	"os"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/convert/compat"
)

// TestRulesAreDocumented keeps the user's page of rules complete and in order.
func TestRulesAreDocumented(t *testing.T) {
	b, err := os.ReadFile("../../docs/COMPATIBILITY.md")
	if err != nil {
		t.Fatal(err)
	}
	at := 0
	for _, rule := range compat.Rules() {
		i := strings.Index(string(b[at:]), "### `"+string(rule)+"`\n")
		if i < 0 {
			t.Errorf("rule %s has no section, or stands out of order", rule)
			continue
		}
		at += i
	}
	for _, class := range []compat.Class{compat.ClassUnparseable, compat.ClassNoFPRegs, compat.ClassNoCPUInfo, compat.ClassFPUBits,
		compat.ClassXFeatures, compat.ClassXSaveSize, compat.ClassINS, compat.ClassCPU, compat.ClassXSaveRecord, compat.ClassArraySize} {
		if !strings.Contains(string(b), "| `"+string(class)+"` |") {
			t.Errorf("class %s is not explained", class)
		}
	}
}
