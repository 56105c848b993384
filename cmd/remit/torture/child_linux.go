package torture

import "syscall"

// childAttr makes the server end with the program that started it, whatever ends that, and keeps Ctrl-C from it: it is
// stopped by its own methods.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
