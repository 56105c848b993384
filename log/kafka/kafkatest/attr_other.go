//go:build !linux

package kafkatest

import "syscall"

func attr() *syscall.SysProcAttr { return nil }
