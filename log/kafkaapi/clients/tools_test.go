package clients_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/remitlog/remit/log/kafka/kafkatest"
)

// tool is a client that a test can run. Each of its commands is a process.
type tool struct {
	name string
	// absent returns why it cannot be run, "" if it can.
	absent func() string
	// create makes a topic; nil if the test does.
	create func(broker, topic string, partitions int) *exec.Cmd
	// list prints the topics' names, each somewhere on a line.
	list func(broker string) *exec.Cmd
	// produce sends "key\tvalue" lines from its standard input, and ends with 0 when all are acknowledged.
	produce func(broker, topic string) *exec.Cmd
	// consume is a member of a group: it prints "partition\toffset\tkey\tvalue", commits behind it, and leaves on SIGTERM. Who says nothing for
	// a session is taken for dead.
	consume func(broker, group, topic string, session time.Duration) *exec.Cmd
	// seek prints all records from a time on, which are n, and ends.
	seek func(t *testing.T, broker, topic string, from time.Time, n int) *exec.Cmd
	// drops: what it holds when it is told to end is committed and not printed.
	drops bool
	// parse reads a line of consume and seek; nil: as above.
	parse func(line string) (record, bool)
}

// record is one line.
type record struct {
	partition  int
	offset     int64
	key, value string
}

func parse(line string) (r record, ok bool) {
	f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
	if len(f) != 4 {
		return r, false
	}
	var err error
	if r.partition, err = strconv.Atoi(f[0]); err != nil {
		return r, false
	}
	if r.offset, err = strconv.ParseInt(f[1], 10, 64); err != nil {
		return r, false
	}
	r.key, r.value = f[2], f[3]
	return r, true
}

// clientsDir is where .ci/clients puts what it installs.
func clientsDir() string {
	if dir := os.Getenv("REMIT_CLIENTS"); dir != "" {
		return dir
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(cache, "remit", "clients")
}

func inPath(name string) func() string {
	return func() string {
		if _, err := exec.LookPath(name); err != nil {
			return name + " is not there; .ci/clients installs it"
		}
		return ""
	}
}

func inClients(command, path string) func() string {
	return func() string {
		if why := inPath(command)(); why != "" {
			return why
		}
		if _, err := os.Stat(filepath.Join(clientsDir(), path)); err != nil {
			return path + " is not there; .ci/clients installs it"
		}
		return ""
	}
}

var tools = []tool{kcat, script("kafkajs", "node", "kafkajs.mjs", "node_modules/kafkajs"), python("kafka-python", "kafka_python.py", "kafka"),
	python("confluent-kafka", "confluent.py", "confluent_kafka"), java, goTool("sarama"), goTool("franz-go")}

var kcat = tool{
	name:   "kcat",
	absent: inPath("kcat"),
	drops:  true, // of its consume_cb the first line is: if (!conf.run) return
	list:   func(broker string) *exec.Cmd { return exec.Command("kcat", "-b", broker, "-L") },
	produce: func(broker, topic string) *exec.Cmd {
		return exec.Command("kcat", "-b", broker, "-P", "-t", topic, "-K", "\t", "-X", "enable.idempotence=true", "-X", "partitioner=murmur2_random")
	},
	consume: func(broker, group, topic string, session time.Duration) *exec.Cmd {
		return exec.Command("kcat", "-b", broker, "-u", "-f", `%p\t%o\t%k\t%s\n`, "-X", "auto.offset.reset=earliest", "-X", "session.timeout.ms="+millis(session),
			"-X", "heartbeat.interval.ms=500", "-X", "auto.commit.interval.ms=200", "-G", group, topic)
	},
	seek: func(_ *testing.T, broker, topic string, from time.Time, _ int) *exec.Cmd {
		return exec.Command("kcat", "-b", broker, "-C", "-t", topic, "-o", fmt.Sprintf("s@%d", from.UnixMilli()), "-e", "-u", "-f", `%p\t%o\t%k\t%s\n`)
	},
}

// script is a client that testdata has a program for, which takes the verb and its arguments.
func script(name, command, file, needs string) tool {
	absent := inClients(command, needs)
	return withVerbs(name, absent, func(args ...string) *exec.Cmd {
		cmd := exec.Command(command, append([]string{filepath.Join("testdata", file)}, args...)...)
		cmd.Env = append(os.Environ(), "REMIT_CLIENTS="+clientsDir(), "NODE_NO_WARNINGS=1", "PYTHONDONTWRITEBYTECODE=1")
		return cmd
	})
}

func python(name, file, module string) tool {
	installed := func() string {
		found, _ := filepath.Glob(filepath.Join(clientsDir(), "python", "lib", "python3*", "site-packages", module))
		if len(found) == 0 {
			return name + " is not there; .ci/clients installs it"
		}
		return ""
	}
	t := script(name, filepath.Join(clientsDir(), "python", "bin", "python3"), file, "python")
	t.absent = installed
	return t
}

func withVerbs(name string, absent func() string, run func(args ...string) *exec.Cmd) tool {
	return tool{
		name:    name,
		absent:  absent,
		list:    func(broker string) *exec.Cmd { return run("list", broker) },
		produce: func(broker, topic string) *exec.Cmd { return run("produce", broker, topic) },
		consume: func(broker, group, topic string, session time.Duration) *exec.Cmd {
			return run("consume", broker, group, topic, millis(session))
		},
		seek: func(_ *testing.T, broker, topic string, from time.Time, _ int) *exec.Cmd {
			return run("seek", broker, topic, strconv.FormatInt(from.UnixMilli(), 10))
		},
	}
}

// javaTool runs a program of Apache Kafka's.
func javaTool(class string, args ...string) *exec.Cmd {
	libs, _ := kafkatest.Libs() // absent has asked
	return exec.Command("java", append([]string{"-Xmx96m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Dorg.apache.logging.log4j.level=WARN",
		"-cp", libs + "/*", "org.apache.kafka.tools." + class}, args...)...)
}

var java = tool{
	name: "java",
	absent: func() string {
		if _, err := kafkatest.Libs(); err != nil {
			return err.Error()
		}
		return inPath("java")()
	},
	create: func(broker, topic string, partitions int) *exec.Cmd {
		return javaTool("TopicCommand", "--bootstrap-server", broker, "--create", "--topic", topic, "--partitions", strconv.Itoa(partitions))
	},
	list: func(broker string) *exec.Cmd { return javaTool("TopicCommand", "--bootstrap-server", broker, "--list") },
	produce: func(broker, topic string) *exec.Cmd {
		return javaTool("ConsoleProducer", "--bootstrap-server", broker, "--topic", topic, "--reader-property", "parse.key=true",
			"--command-property", "acks=all", "--command-property", "enable.idempotence=true")
	},
	consume: func(broker, group, topic string, session time.Duration) *exec.Cmd {
		return javaTool("consumer.ConsoleConsumer", append(javaPrints, "--bootstrap-server", broker, "--topic", topic, "--group", group,
			"--command-property", "session.timeout.ms="+millis(session), "--command-property", "heartbeat.interval.ms=500",
			"--command-property", "auto.offset.reset=earliest", "--command-property", "auto.commit.interval.ms=200")...)
	},
	seek:  javaSeek,
	parse: javaParse,
}

var javaPrints = []string{"--formatter-property", "print.key=true", "--formatter-property", "print.partition=true", "--formatter-property", "print.offset=true"}

// javaParse reads "Partition:1\tOffset:2\tkey\tvalue".
func javaParse(line string) (record, bool) {
	line, ok := strings.CutPrefix(line, "Partition:")
	return both(ok, line)
}

func both(ok bool, line string) (record, bool) {
	if !ok {
		return record{}, false
	}
	return parse(strings.Replace(line, "Offset:", "", 1))
}

// javaSeek lets the tool for consumer groups set a group to a time, and a consumer of that group read on from there.
func javaSeek(t *testing.T, broker, topic string, from time.Time, n int) *exec.Cmd {
	group := "seek-" + topic
	reset := javaTool("consumer.group.ConsumerGroupCommand", "--bootstrap-server", broker, "--group", group, "--topic", topic,
		"--reset-offsets", "--to-datetime", from.UTC().Format("2006-01-02T15:04:05.000"), "--execute")
	if out, err := reset.CombinedOutput(); err != nil || !bytes.Contains(out, []byte(topic)) {
		t.Fatalf("reset-offsets: %v\n%s", err, out)
	}
	return javaTool("consumer.ConsoleConsumer", append(javaPrints, "--bootstrap-server", broker, "--topic", topic, "--group", group, "--max-messages", strconv.Itoa(n))...)
}

// verbOf is the variable that makes this test binary one of the clients in Go.
const verbOf = "REMIT_TEST_CLIENT"

// goTool is a client in this test binary.
func goTool(name string) tool {
	return withVerbs(name, func() string { return "" }, func(args ...string) *exec.Cmd {
		self, err := os.Executable()
		if err != nil {
			panic(err)
		}
		cmd := exec.Command(self, args...)
		cmd.Env = append(os.Environ(), verbOf+"="+name)
		return cmd
	})
}

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// run runs a command to its end and returns what it printed.
func run(t *testing.T, cmd *exec.Cmd, stdin string) string {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%s: %v\n%s%s", strings.Join(cmd.Args, " "), err, last(out.String()), last(errs.String()))
	}
	return out.String()
}

func last(s string) string { return s[max(0, len(s)-4000):] }
