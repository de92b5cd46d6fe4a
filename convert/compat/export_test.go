package compat

import "github.com/fpuimg/fpuimg/codec/xstate"

// ChangedIn lists the releases of CRIU that changed something.
func ChangedIn() []xstate.Release { return since[:] }

// Rules lists every rule id, in the order in which reports name them.
func Rules() []Rule {
	ids := make([]Rule, len(rules))
	for i := range rules {
		ids[i] = rules[i].id
	}
	return ids
}
