package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRegistrationCommands runs the commands of producers, instances and subscriptions against a server: what they print, how they exit, what they
// complete, and that a secret comes from a file or the standard input and is printed nowhere.
func TestRegistrationCommands(t *testing.T) {
	environ := []string{"REMIT_SERVER=" + startServer(t)}
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	secret, empty, bad := file("secret", "hidden-1\n"), file("empty", " \n"), file("bad", "whsec_hidden***")
	long := file("long", "hidden"+strings.Repeat("x", 4<<10))
	for _, c := range []struct {
		args           string
		stdin          string
		code           int
		stdout, stderr string // parts, parted by |
	}{
		{"producers list", "", exitOK, "PRODUCER", ""},
		{"producers put shop --check-url http://127.0.0.1:1/check --check-secret-file " + secret, "", exitOK, "check     http://127.0.0.1:1/check|after 10s, then 10s to 10m, until 24h|secret    yes", ""},
		{"producers show shop", "", exitOK, "http://127.0.0.1:1/check", ""},
		{"producers get shop", "", exitOK, "http://127.0.0.1:1/check", ""}, // as it was called
		{"producers set shop --check-url http://127.0.0.1:1/check", "", exitOK, "secret    yes", ""},
		{"producers put shop --check-secret-file - --check-first-after 1s --concurrency 4 --rate 9 --precheck-url http://127.0.0.1:1/pre --precheck-secret-file " + secret + " -o json", "hidden-2\n", exitOK,
			`"check":{"secretSet":true,"firstAfter":"1s"|"concurrency":4,"rate":9}|"precheck":{"url":"http://127.0.0.1:1/pre","secretSet":true}`, ""},
		{"producers list", "", exitOK, "shop      instances|after 1s", ""},
		{"producers put shop --no-check-secret", "", exitOK, "secret    no", ""},
		{"producers put shop --no-check-secret --check-secret-file " + secret, "", exitUsage, "", "check-secret-file no-check-secret"},
		{"producers put shop --check-secret-file - --precheck-secret-file -", "hidden", exitUsage, "", "the standard input is read once"},
		{"producers put shop --check-secret-file -", "", exitUsage, "", "there is no secret in it|--no-check-secret"},
		{"producers put shop --check-secret-file " + empty, "", exitUsage, "", "there is no secret in it"},
		{"producers put shop --check-secret-file " + bad, "", exitUsage, "", "check.secret|base64"},
		{"producers put shop --check-secret-file " + long, "", exitUsage, "", "check.secret|at most 1024"},
		{"producers put shop --check-secret-file " + filepath.Join(dir, "none"), "", exitUsage, "", "no such file"},
		{"producers put shop --check-url http://127.0.0.1:1/check --check-deadline 1s", "", exitUsage, "", "third check"},
		{"producers put shop --check-interval soon", "", exitUsage, "", `"soon" is not a duration`},
		{"producers put shop --rate many", "", exitUsage, "", `"many" is not a number`},
		{"producers put shop --concurrency 0", "", exitUsage, "", "1 to 1024"},
		{"producers show nobody", "", exitNotFound, "", "unknown_producer, 404"},

		{"producers instances", "", exitUsage, "", "needs a command"},
		{"producers instances put shop a --url http://10.0.0.1:8080/check", "", exitOK, "instance  a|lease     30s", ""},
		{"producers instances put shop b --url http://10.0.0.2:8080/check --lease 1h -o jsonl", "", exitOK, `{"producer":"shop","instance":"b","url":"http://10.0.0.2:8080/check","lease":"1h"}`, ""},
		{"producers instances put shop a", "", exitUsage, "", `required flag(s) "url"`},
		{"producers instances put shop a --url http://10.0.0.1/ --lease 1ms", "", exitUsage, "", "1s to 24h"},
		{"producers instances put nobody a --url http://10.0.0.1/", "", exitNotFound, "", "unknown_producer, 404"},
		{"producers instances list shop --limit 1", "", exitOK, "INSTANCE|a  ", "--limit 0 prints all"},
		{"producers instances list nobody", "", exitNotFound, "", "unknown_producer"},
		{"producers instances delete shop a", "", exitOK, "", ""},
		{"producers instances delete shop a", "", exitNotFound, "", "unknown_instance, 404"},

		{"log topics create orders", "", exitOK, "", ""},
		{"subscriptions put crm --topic orders --sink https://crm.example/in --secret-file " + secret, "", exitOK, "sink          https://crm.example/in|secret        yes|from          latest|retry         1s to 10m, until 24h", ""},
		{"subscriptions put crm --topic orders --sink https://crm.example/in --secret-file - --filter true --retry-interval 2s --retry-max-interval 3s --retry-deadline 1h", "hidden-2", exitOK, "filter        true|retry         2s to 3s, until 1h", ""},
		{"subscriptions put crm --topic orders --sink https://crm.example/in --no-secret -o json", "", exitOK, `"secretSet":false`, ""},
		{"subscriptions put all --topic payments --sink https://crm.example/in --from earliest", "", exitOK, "from          earliest", ""},
		{"subscriptions put all --topic payments --sink https://crm.example/in --from middle", "", exitUsage, "", "latest"},
		{"subscriptions put crm --topic payments --sink https://crm.example/in", "", exitConflict, "", "content_mismatch, 409"},
		{"subscriptions put new --topic nothing --sink https://crm.example/in", "", exitNotFound, "", "unknown_topic, 404"},
		{"subscriptions put new --topic orders", "", exitUsage, "", `required flag(s) "sink"`},
		{"subscriptions list", "", exitOK, "SUBSCRIPTION|all |crm ", ""},
		{"subscriptions show crm", "", exitOK, "topic             orders", ""},
		{"subscriptions show nothing", "", exitNotFound, "", "unknown_subscription, 404"},

		{"__complete producers show s", "", exitOK, "shop\n|:4", ""},
		{"__complete producers instances put s", "", exitOK, "shop\n", ""},
		{"__complete producers instances delete shop ", "", exitOK, "b\n", ""},
		{"__complete subscriptions delete c", "", exitOK, "crm\n", ""},

		{"subscriptions delete crm", "", exitOK, "", ""},
		{"subscriptions delete crm", "", exitNotFound, "", "unknown_subscription"},
		{"producers delete shop", "", exitOK, "", ""},
		{"producers delete shop", "", exitNotFound, "", "unknown_producer"},
		{"log tail remit.registry", "", exitError, "", "forbidden, 403"},
		{"config print -o json", "", exitOK, "", ""},
	} {
		var stdout, stderr bytes.Buffer
		args := strings.Fields(c.args)
		if strings.HasSuffix(c.args, " ") {
			args = append(args, "")
		}
		a := &app{stdin: strings.NewReader(c.stdin), stdout: &stdout, stderr: &stderr, environ: environ, signals: notify, open: open}
		code := a.run(t.Context(), args)
		if code != c.code {
			t.Errorf("remit %s: exit %d, want %d: %s", c.args, code, c.code, &stderr)
		}
		for _, out := range [][2]string{{stdout.String(), c.stdout}, {stderr.String(), c.stderr}} {
			for want := range strings.SplitSeq(out[1], "|") {
				if !strings.Contains(out[0], want) {
					t.Errorf("remit %s: %q has no %q", c.args, out[0], want)
				}
			}
			if strings.Contains(out[0], "hidden") {
				t.Errorf("remit %s: prints a secret: %s", c.args, out[0])
			}
		}
	}
}

// TestCompletionWithoutServer: where no server answers, nothing is completed, and that is no error.
func TestCompletionWithoutServer(t *testing.T) {
	code, stdout, _ := runApp(t, []string{"REMIT_SERVER=http://127.0.0.1:1"}, "__complete", "producers", "show", "")
	if code != exitOK || stdout != ":4\n" {
		t.Errorf("exit %d: %q", code, stdout)
	}
}
