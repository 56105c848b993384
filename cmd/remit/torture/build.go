package torture

import (
	"fmt"
	"os"
	"os/exec"
)

// BinaryEnv names a remit that was built beforehand, for all tests that run one: each would build it anew.
const BinaryEnv = "TEST_REMIT"

// Build builds remit of the module that it is called in, into a file, and returns where it is: there, or where BinaryEnv says that it is already.
func Build(file string) (binary string, err error) {
	if there := os.Getenv(BinaryEnv); there != "" {
		return there, nil
	}
	if out, err := exec.Command("go", "build", "-o", file, "github.com/remitlog/remit/cmd/remit").CombinedOutput(); err != nil {
		return "", fmt.Errorf("torture: %w\n%s", err, out)
	}
	return file, nil
}
