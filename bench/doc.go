// Package bench compares codec with go-criu, the Go bindings of the CRIU project:
// its decoder is a second opinion on every value, and the yardstick for speed.
//
// It is a module of its own, so that fpuimg does not depend on go-criu.
package bench
