package kafkatest

import "syscall"

// attr makes the broker end with the program that started it, and keeps Ctrl-C from it: it is stopped by its own methods.
func attr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
