//go:build !linux

package dbtest

import "syscall"

func attributes(string) (*syscall.SysProcAttr, error) { return nil, nil }

func own(string, string) error { return nil }
