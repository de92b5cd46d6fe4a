// Package compat is the policy engine: it says whether a thread's FPU state fits a
// target, what would have to change, and what would be lost. show, check, convert
// and fpurestore all ask it, so they cannot disagree. It does no I/O, and both
// machines are data.
//
// # Modes
//
// CRIU's thread about FXSAVE images gave the two modes. The default lets a state
// go up only, none to fxsave to xsave, and refuses what takes something away.
// With [Policy.Force] a downgrade goes ahead and the report names each loss.
//
// # Findings
//
// A [Report] gathers every finding, it never stops at the first. Each has the id
// of its rule, a severity and a reason. Fatal findings decide the [Verdict]; risky
// ones and notes never do. The table of the rules stands in rules.go.
//
// [Decide] is about one thread. [Judge] gathers what there is to say of a checkpoint:
// its threads, the machines, files that cannot be read, the verdict, whether force
// lifts it, and what CRIU does. Nothing here is text for a shell: what to do about a
// finding is a [Remedy].
//
// # CRIU
//
// [Judgement.Predict] says what a release of CRIU does with a checkpoint on a host for each value of
// its --cpu-cap option. That is advice beside the verdict, not part of it.
package compat
