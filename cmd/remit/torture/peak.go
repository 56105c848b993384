package torture

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// PeakBytes is the most memory that the server's process has had resident, while it runs; 0 where the system does not say.
func (s *Server) PeakBytes() int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.Pid()))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64) // the kernel's own words
			return kib << 10
		}
	}
	return 0
}
