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
// ones and notes never do. The rules stand in order in rules.go and machine.go.
//
// # CRIU
//
// [Predict] says what CRIU 4.2 does with a checkpoint on a host for each value of
// its --cpu-cap option. That is advice beside the verdict, not part of it.
package compat
