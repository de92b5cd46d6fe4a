package xstate

import "strings"

// vendors maps the string of CPUID leaf 0 to the name that [CPU.Vendor] has.
var vendors = [...][2]string{
	{"GenuineIntel", "intel"},
	{"AuthenticAMD", "amd"},
	{"HygonGenuine", "hygon"},
	{"CentaurHauls", "centaur"},
	{"  Shanghai  ", "zhaoxin"},
}

// VendorName returns the short name of the vendor that CPUID leaf 0 spells id. A
// vendor that is not in the table gets its own spelling, trimmed.
func VendorName(id string) string {
	for _, v := range vendors {
		if v[0] == id {
			return v[1]
		}
	}
	return strings.TrimSpace(strings.Trim(id, "\x00"))
}
