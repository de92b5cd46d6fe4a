//go:build race

package testcmd

const race = true
