package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/remitlog/remit/log"
)

func kafkaClient(t *testing.T, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	c, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// TestKafkaTLS: with a certificate the Kafka API is TLS too, and asks for client certificates where the HTTP API does.
func TestKafkaTLS(t *testing.T) {
	dir := t.TempDir()
	cert, pool := writeCertificate(t, dir)
	file := func(name string) string { return filepath.Join(dir, name) }
	_, address := startConfig(t, Config{Data: t.TempDir(), Partitions: 4, Kafka: "127.0.0.1:0",
		TLSCert: file("cert.pem"), TLSKey: file("key.pem"), TLSClientCA: file("cert.pem")})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	with := kafkaClient(t, kgo.SeedBrokers(address), kgo.DialTLSConfig(&tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}}))
	topics, err := kadm.NewClient(with).ListTopicsWithInternal(ctx)
	if err != nil || !topics.Has(log.EventsTopic) {
		t.Error(topics.Names(), err)
	}
	for name, c := range map[string]*kgo.Client{
		"no certificate": kafkaClient(t, kgo.SeedBrokers(address), kgo.RequestRetries(0), kgo.DialTLSConfig(&tls.Config{RootCAs: pool})),
		"no TLS":         kafkaClient(t, kgo.SeedBrokers(address), kgo.RequestRetries(0)),
	} {
		if err := c.Ping(ctx); err == nil {
			t.Errorf("%s: it is served", name)
		}
	}
}

// A topic that is deleted over HTTP is gone for consumer groups, and one with messages that are undecided is deleted over neither.
func TestKafkaAndHTTPDelete(t *testing.T) {
	url, address := startConfig(t, Config{Data: t.TempDir(), Partitions: 4, AutoCreateTopics: true, Kafka: "127.0.0.1:0"})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	a := kadm.NewClient(kafkaClient(t, kgo.SeedBrokers(address)))
	call := func(method, path, contentType, body string) int {
		t.Helper()
		r, err := http.NewRequestWithContext(ctx, method, url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", contentType)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	for _, topic := range []string{"plain", "busy"} {
		if _, err := a.CreateTopic(ctx, 1, 1, nil, topic); err != nil {
			t.Fatal(err)
		}
	}
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: "plain", At: 7, LeaderEpoch: -1})
	if r, err := a.CommitOffsets(ctx, "g", offsets); err != nil || r.Error() != nil {
		t.Fatal(r, err)
	}
	if code := call("DELETE", "/v1/topics/plain", "", ""); code != http.StatusNoContent {
		t.Error(code)
	}
	if got, err := a.FetchOffsets(ctx, "g"); err != nil || len(got) != 0 {
		t.Error(got, err)
	}
	if code := call("PUT", "/v1/producers/shop", "application/json", `{}`); code/100 != 2 {
		t.Fatal(code)
	}
	event := `{"specversion":"1.0","id":"1","source":"/shop","type":"shop.ordered.v1","data":{}}`
	if code := call("POST", "/v1/topics/busy/messages?producer=shop", "application/cloudevents+json", event); code != http.StatusCreated {
		t.Fatal(code)
	}
	if code := call("DELETE", "/v1/topics/busy", "", ""); code != http.StatusConflict {
		t.Error(code)
	}
	if r, err := a.DeleteTopics(ctx, "busy"); err != nil || !errors.Is(r["busy"].Err, kerr.PolicyViolation) {
		t.Error(r, err)
	}
}

// The address is taken before any data is touched.
func TestKafkaAddressTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	data := filepath.Join(t.TempDir(), "data")
	code, _, stderr := runApp(t, nil, "serve", "--data", data, "--http", "127.0.0.1:0", "--kafka", l.Addr().String())
	if code != exitUnavailable || !strings.Contains(stderr, "port 0 picks a free one") {
		t.Errorf("%d: %s", code, stderr)
	}
	if all, err := filepath.Glob(data); err != nil || len(all) > 0 {
		t.Error("data was touched:", all, err)
	}
}
