//go:build !race

package testcmd

const race = false
