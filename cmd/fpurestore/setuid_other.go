//go:build !unix

package main

func setUID() bool { return false }
