package torture

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// PeakBytes is the most memory that the server's process has had resident, while it runs; 0 where the system does not say.
func (s *Server) PeakBytes() int64 { return s.memory("VmHWM:") }

// ResidentBytes is how much memory the server's process has resident now; 0 where the system does not say.
func (s *Server) ResidentBytes() int64 { return s.memory("VmRSS:") }

func (s *Server) memory(field string) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.Pid()))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, field); ok {
			kib, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64) // the kernel's own words
			return kib << 10
		}
	}
	return 0
}

// tick is the unit of processor time in /proc: USER_HZ, which is 100 on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// CPU is how much processor time the server's process has taken so far; 0 where the system does not say.
func (s *Server) CPU() time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.Pid()))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // the name before it may hold spaces
	fields := strings.Fields(rest)
	const user, system = 14 - 3, 15 - 3 // of proc_pid_stat(5), less those before the cut
	if len(fields) <= system {
		return 0
	}
	u, _ := strconv.ParseInt(fields[user], 10, 64) // the kernel's own words
	k, _ := strconv.ParseInt(fields[system], 10, 64)
	return time.Duration(u+k) * tick
}
