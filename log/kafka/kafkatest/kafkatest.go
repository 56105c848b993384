// Package kafkatest starts Apache Kafka for tests and measurements: one broker that is its own controller, on 127.0.0.1.
//
// It needs Java 17 or newer and Kafka's jars, which .ci/kafka fetches with Maven into $KAFKA_LIBS.
package kafkatest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Version is the release of Apache Kafka that pom.xml names.
const Version = "4.3.1"

const (
	// readyMax is how long a broker may take until it serves.
	readyMax = 2 * time.Minute
	// stopMax is how long it may take to end in order.
	stopMax = 30 * time.Second
	// portsMax is how many times a start is tried anew because a port was taken in between.
	portsMax = 3
	// sayMax is how much of a failed broker's log an error shows.
	sayMax = 2 << 10
	// ready is the line that a broker logs when it serves; a port that is open is too soon.
	ready = "Kafka Server started"
)

// ErrAbsent: Java or the jars are not there. Run .ci/kafka, or set KAFKA_LIBS to a folder that has them.
var ErrAbsent = errors.New("kafkatest: Apache Kafka is not there; .ci/kafka fetches it")

// Options say what is started.
type Options struct {
	// Dir takes its data and its log.
	Dir string
	// Heap is the most memory of the Java heap; 512m by default. 192m is the least that starts.
	Heap string
	// Properties are broker properties, name=value, that override those set here.
	Properties []string
}

// Broker is a running Apache Kafka.
type Broker struct {
	// Addr is where clients connect.
	Addr string

	opts  Options
	cmd   *exec.Cmd
	ended chan struct{}
}

// New starts a broker that ends with the test, which is skipped where there is no Apache Kafka.
func New(t testing.TB, properties ...string) *Broker {
	t.Helper()
	b, err := Start(t.Context(), Options{Dir: t.TempDir(), Properties: properties})
	if errors.Is(err, ErrAbsent) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Stop)
	return b
}

// Libs returns the folder with Kafka's jars: $KAFKA_LIBS, else where .ci/kafka puts them. ErrAbsent if they are not there.
func Libs() (string, error) {
	libs := os.Getenv("KAFKA_LIBS")
	if libs == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("%w: %w", ErrAbsent, err)
		}
		libs = filepath.Join(cache, "remit", "kafka-"+Version)
	}
	if _, err := os.Stat(filepath.Join(libs, ".complete")); err != nil {
		return "", fmt.Errorf("%w: %w", ErrAbsent, err)
	}
	return libs, nil
}

// Start starts a broker and waits until it serves.
func Start(ctx context.Context, o Options) (*Broker, error) {
	libs, err := Libs()
	if err != nil {
		return nil, err
	}
	if _, err := exec.LookPath("java"); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAbsent, err)
	}
	if o.Heap == "" {
		o.Heap = "512m"
	}
	for try := 1; ; try++ {
		b := &Broker{opts: o}
		err := b.start(ctx, libs)
		if err == nil {
			return b, nil
		}
		if try == portsMax || !errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("kafkatest: %w", err)
		}
	}
}

// Pid is the broker's process.
func (b *Broker) Pid() int { return b.cmd.Process.Pid }

// Kill ends it without warning.
func (b *Broker) Kill() {
	_ = b.cmd.Process.Kill() // it may have ended by itself
	<-b.ended
}

// Stop ends it in order, and without warning if that takes too long.
func (b *Broker) Stop() {
	_ = b.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	select {
	case <-b.ended:
	case <-time.After(stopMax):
		b.Kill()
	}
}

func (b *Broker) start(ctx context.Context, libs string) error {
	ports, err := freePorts(2)
	if err != nil {
		return err
	}
	b.Addr = fmt.Sprintf("127.0.0.1:%d", ports[0])
	properties := filepath.Join(b.opts.Dir, "server.properties")
	if err := os.WriteFile(properties, b.properties(ports), 0o600); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(b.opts.Dir, "data", "meta.properties")); err != nil {
		format := exec.CommandContext(ctx, "java", "-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp", libs+"/*", "kafka.tools.StorageTool",
			"format", "--cluster-id", clusterID(), "--config", properties)
		if out, err := format.CombinedOutput(); err != nil {
			return fmt.Errorf("format: %w: %s", err, out)
		}
	}
	return b.run(ctx, libs, properties)
}

func (b *Broker) properties(ports []int) []byte {
	var w bytes.Buffer
	fmt.Fprintf(&w, `process.roles=broker,controller
node.id=0
controller.quorum.voters=0@127.0.0.1:%[2]d
listeners=PLAINTEXT://127.0.0.1:%[1]d,CONTROLLER://127.0.0.1:%[2]d
advertised.listeners=PLAINTEXT://127.0.0.1:%[1]d
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs=%[3]s
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=8
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
`, ports[0], ports[1], filepath.Join(b.opts.Dir, "data"))
	for _, p := range b.opts.Properties {
		w.WriteString(p + "\n") // the last one of a name counts
	}
	return w.Bytes()
}

// run starts the process and waits for its word that it serves.
func (b *Broker) run(ctx context.Context, libs, properties string) error {
	out, err := os.Create(filepath.Join(b.opts.Dir, "server.log"))
	if err != nil {
		return err
	}
	defer out.Close()
	b.cmd = exec.Command("java", "-Xmx"+b.opts.Heap, "-XX:+ExitOnOutOfMemoryError", "-Dorg.apache.logging.log4j.level=INFO",
		"-cp", libs+"/*", "kafka.Kafka", properties) // not of ctx: it is stopped by its methods
	b.cmd.Stdout, b.cmd.Stderr = out, out
	b.cmd.SysProcAttr = attr()
	if err := b.cmd.Start(); err != nil {
		return err
	}
	b.ended = make(chan struct{})
	go func() {
		_ = b.cmd.Wait()
		close(b.ended)
	}()
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	patience := time.After(readyMax)
	for {
		said, err := os.ReadFile(out.Name())
		if err != nil {
			b.Kill()
			return err
		}
		if bytes.Contains(said, []byte(ready)) {
			return nil
		}
		select {
		case <-look.C:
		case <-b.ended:
			return failed(errors.New("the broker ended at its start"), said)
		case <-patience:
			b.Kill()
			return failed(fmt.Errorf("not ready after %s", readyMax), said)
		case <-ctx.Done():
			b.Kill()
			return ctx.Err()
		}
	}
}

// failed adds what the broker said last; it is EADDRINUSE if that was why.
func failed(err error, said []byte) error {
	if bytes.Contains(said, []byte("java.net.BindException")) {
		err = errors.Join(err, syscall.EADDRINUSE)
	}
	return fmt.Errorf("%w: %s", err, said[max(0, len(said)-sayMax):])
}

// freePorts finds ports that nobody listens on at this moment.
func freePorts(n int) (ports []int, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// clusterID is 16 random bytes as Kafka writes them. No argument may begin with a dash.
func clusterID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	id := base64.RawURLEncoding.EncodeToString(b[:])
	if strings.HasPrefix(id, "-") {
		id = "x" + id[1:]
	}
	return id
}
