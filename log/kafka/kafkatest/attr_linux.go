package kafkatest

import "syscall"

// attr keeps Ctrl-C from the broker: it is stopped by its own methods.
func attr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
