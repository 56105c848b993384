//go:build !linux

package torture

import "syscall"

// childAttr is nothing: a server outlives a program that is killed.
func childAttr() *syscall.SysProcAttr { return nil }
