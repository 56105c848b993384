package clients_test

import (
	"strings"
	"testing"
)

// TestJavaTools: Apache Kafka's tools for topics, groups and offsets say what is so.
func TestJavaTools(t *testing.T) {
	if why := java.absent(); why != "" {
		t.Skip(why)
	}
	s := dev(t)
	tool := func(class string, args ...string) string {
		t.Helper()
		return run(t, javaTool(class, append([]string{"--bootstrap-server", s.Kafka}, args...)...), "")
	}
	says := func(said string, words ...string) {
		t.Helper()
		for _, w := range words {
			if !strings.Contains(said, w) {
				t.Errorf("%q is not in\n%s", w, said)
			}
		}
	}
	tool("TopicCommand", "--create", "--topic", "orders", "--partitions", "3")
	says(tool("TopicCommand", "--describe", "--topic", "orders"), "PartitionCount: 3", "Partition: 2")
	run(t, java.produce(s.Kafka, "orders"), strings.Repeat("a\t1\nb\t2\nc\t3\n", 10))
	says(tool("GetOffsetShell", "--topic", "orders"), "orders:0:", "orders:1:", "orders:2:")

	// A group of offsets alone, made by an administrator.
	says(tool("consumer.group.ConsumerGroupCommand", "--group", "g", "--topic", "orders", "--reset-offsets", "--to-earliest", "--execute"), "orders")
	says(tool("consumer.group.ConsumerGroupCommand", "--list", "--state"), "g", "Empty")
	says(tool("consumer.group.ConsumerGroupCommand", "--describe", "--group", "g"), "CURRENT-OFFSET", "LAG", "orders")
	says(run(t, javaTool("consumer.ConsoleConsumer", "--bootstrap-server", s.Kafka, "--topic", "orders", "--group", "g", "--max-messages", "30", "--timeout-ms", "60000"), ""), "1\n", "2\n", "3\n")
	described := tool("consumer.group.ConsumerGroupCommand", "--describe", "--group", "g")
	lag := 0
	for line := range strings.Lines(described) {
		if f := strings.Fields(line); len(f) > 5 && f[1] == "orders" && f[5] != "0" {
			lag++
		}
	}
	if lag > 0 || strings.Count(described, "orders") != 3 {
		t.Errorf("all is read, and the tool says\n%s", described)
	}
	says(tool("consumer.group.ConsumerGroupCommand", "--delete-offsets", "--group", "g", "--topic", "orders:1"), "Successful")
	says(tool("consumer.group.ConsumerGroupCommand", "--delete", "--group", "g"), "successful")
	if said := tool("consumer.group.ConsumerGroupCommand", "--list"); strings.TrimSpace(said) != "" {
		t.Errorf("the group was deleted, and the tool lists %q", said)
	}
	tool("TopicCommand", "--alter", "--topic", "orders", "--partitions", "5")
	says(tool("TopicCommand", "--describe", "--topic", "orders"), "PartitionCount: 5")
	tool("TopicCommand", "--delete", "--topic", "orders")
	if said := tool("TopicCommand", "--list"); strings.Contains(said, "orders") {
		t.Errorf("the topic was deleted, and the tool lists %q", said)
	}
}
