//go:build !linux

package guest

import (
	"errors"
	"syscall"
)

func lockCache(string) (func(), error) {
	return nil, errors.New("guest: needs linux/amd64")
}

func dieWithParent() *syscall.SysProcAttr { return nil }

func inNamespaces(*syscall.SysProcAttr) {}
