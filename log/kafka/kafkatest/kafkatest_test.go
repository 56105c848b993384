package kafkatest_test

import (
	"net"
	"testing"

	"github.com/remitlog/remit/log/kafka/kafkatest"
)

// TestNew: a broker serves, and is gone when it is stopped.
func TestNew(t *testing.T) {
	b := kafkatest.New(t)
	c, err := net.Dial("tcp", b.Addr)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	b.Stop()
	if c, err := net.Dial("tcp", b.Addr); err == nil {
		c.Close()
		t.Error("it still listens after it was stopped")
	}
}
