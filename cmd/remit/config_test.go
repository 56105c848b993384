package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// loadWith loads opts from a command line, an environment and, if there is one, a file's text.
func loadWith(t *testing.T, opts []option, args, environ []string, file string) (*loader, error) {
	t.Helper()
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	if file != "" {
		path := filepath.Join(t.TempDir(), "remit.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", path)
	}
	l := newLoader(opts, flags, environ)
	if err := flags.Parse(args); err != nil {
		return l, err
	}
	_, err := l.load()
	return l, err
}

func TestConfigPrecedence(t *testing.T) {
	file := "http: 127.0.0.1:1\nkafka: 127.0.0.1:1\ndata: /from/file\nbrokers: [a:1, b:2]\npartitions: 32\n"
	l, err := loadWith(t, options, []string{"--http", "127.0.0.1:3"}, []string{"REMIT_HTTP=127.0.0.1:2", "REMIT_KAFKA=127.0.0.1:2", "OTHER=1"}, file)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][2]string{
		"http":       {"127.0.0.1:3", "flag --http"},
		"kafka":      {"127.0.0.1:2", "env REMIT_KAFKA"},
		"data":       {"/from/file", "remit.yaml:3"},
		"brokers":    {"a:1,b:2", "remit.yaml:4"},
		"partitions": {"32", "remit.yaml:5"},
		"log-level":  {"info", "default"},
	} {
		for _, s := range l.settings() {
			if s.Name == name && (s.Value != want[0] || !strings.Contains(s.Source, want[1])) {
				t.Errorf("%+v, want %v", s, want)
			}
		}
	}
}

func TestConfigFileErrors(t *testing.T) {
	for file, want := range map[string]string{
		"htpp: x\n":                      `remit.yaml:1: unknown option "htpp"; did you mean http?`,
		"# one\nzzzzzzzzzz: x\n":         `remit.yaml:2: unknown option "zzzzzzzzzz"; there are data, http`,
		"config: x\n":                    "unknown option",
		"http: a:1\nhttp: b:2\n":         "remit.yaml:2: http is given twice",
		"partitions: many\n":             `"many" is not a whole number`,
		"partitions: [1]\n":              "give it a number",
		"http:\n":                        "it has no value",
		"http: {a: b}\n":                 "give it a string",
		"- http\n":                       "name: value",
		"auto-create-topics: perhaps\n":  "neither true nor false",
		"http: [\n":                      "remit.yaml: yaml:",
		"htpp: x\nkafkaa: y\ndata: /d\n": "did you mean kafka?",
	} {
		_, err := loadWith(t, options, nil, nil, file)
		if err == nil || !strings.Contains(err.Error(), want) || exitCode(err) != exitUsage {
			t.Errorf("%q: %v, want %s", file, err, want)
		}
	}
	for _, file := range []string{"# nothing\n", "{}\n"} {
		if _, err := loadWith(t, options, nil, nil, file); err != nil {
			t.Errorf("%q: %v", file, err)
		}
	}
	if _, err := loadWith(t, options, []string{"--config", "/not/there"}, nil, ""); err == nil || !strings.Contains(err.Error(), "--config") {
		t.Errorf("%v", err)
	}
}

func TestConfigUnknownEnvironment(t *testing.T) {
	for environ, want := range map[string]string{
		"REMIT_HTPP=x":                                            "REMIT_HTPP is set, and is nothing that remit knows; did you mean REMIT_HTTP?",
		"REMIT_KAFKA_PORT=9092":                                   "REMIT_KAFKA_PORT is set",
		"REMIT_=":                                                 "REMIT_ is set",
		"REMIT_HTPP=x REMIT_PARTITION=8":                          "did you mean REMIT_PARTITIONS?",
		"REMIT_SERVER=y REMIT_CONFIG= REMITS=x":                   "",
		"REMIT_SERVICE_HOST=10.0.0.1 REMIT_SERVICE_PORT=80":       "", // as Kubernetes has them
		"REMIT_SERVICE_PORT_HTTP=80 REMIT_PORT=tcp://10.0.0.1:80": "",
		"REMIT_PORT_80_TCP=tcp://10.0.0.1:80 REMIT_PORT_80_TCP_ADDR=10.0.0.1":      "",
		"REMIT_KAFKA_PORT_9092_TCP_PROTO=tcp REMIT_KAFKA_PORT=tcp://10.0.0.1:9092": "",
	} {
		l, err := loadWith(t, options, nil, strings.Fields(environ), "")
		_, client := (&app{environ: strings.Fields(environ), server: serverDefault}).client()
		switch {
		case want == "" && (err != nil || client != nil):
			t.Errorf("%s: %v, %v", environ, err, client)
		case want != "" && (exitCode(err) != exitUsage || exitCode(client) != exitUsage || !strings.Contains(err.Error(), want) || !strings.Contains(client.Error(), want)):
			t.Errorf("%s: %v, %v; %+v", environ, err, client, l.config)
		}
	}
	if _, err := loadWith(t, options, nil, []string{"REMIT_PARTITIONS=x"}, ""); err == nil || !strings.Contains(err.Error(), "env REMIT_PARTITIONS") {
		t.Errorf("%v", err)
	}
}

// TestConfigSecrets: no flag, a file of its own, and never printed.
func TestConfigSecrets(t *testing.T) {
	secret := text("token", "", "a secret", func(c *Config) *string { return &c.Data })
	secret.secret = true
	opts := []option{secret}
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := loadWith(t, opts, nil, []string{"REMIT_TOKEN_FILE=" + path}, "")
	if err != nil || l.config.Data != "s3cret" || l.settings()[0] != (setting{"token", "********", "env REMIT_TOKEN_FILE"}) {
		t.Errorf("%+v %v %v", l.config, l.settings(), err)
	}
	for _, environ := range [][]string{{"REMIT_TOKEN_FILE=" + path, "REMIT_TOKEN=x"}, {"REMIT_TOKEN_FILE=/not/there"}} {
		if _, err := loadWith(t, opts, nil, environ, ""); err == nil {
			t.Errorf("%v was taken", environ)
		}
	}
	if _, err := loadWith(t, opts, []string{"--token", "x"}, nil, ""); err == nil {
		t.Error("a secret has a flag")
	}
}

func TestConfigValidate(t *testing.T) {
	valid := func(change func(*Config)) error {
		var c Config
		c.EnsureDefaults(options)
		change(&c)
		return c.Validate()
	}
	for _, address := range []string{"127.0.0.1:0", "localhost:8080", "[::1]:8080", "127.9.9.9:1"} {
		if err := valid(func(c *Config) { c.HTTP = address }); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
	for name, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"wildcard http":      {func(c *Config) { c.HTTP = ":8080" }, "no access control"},
		"http of all":        {func(c *Config) { c.HTTP = "0.0.0.0:8080" }, "no access control"},
		"http of all, IPv6":  {func(c *Config) { c.HTTP = "[::]:8080" }, "no access control"},
		"http of a network":  {func(c *Config) { c.HTTP = "192.168.1.1:8080" }, "--http 192.168.1.1:8080 can be reached"},
		"http by name":       {func(c *Config) { c.HTTP = "example.org:8080" }, "no access control"},
		"http without port":  {func(c *Config) { c.HTTP = "127.0.0.1" }, "is not HOST:PORT"},
		"http, wrong port":   {func(c *Config) { c.HTTP = "127.0.0.1:99999" }, "is not a number from 0 to 65535"},
		"kafka of a network": {func(c *Config) { c.Kafka = "10.0.0.1:9092" }, "--kafka 10.0.0.1:9092 can be reached"},
		"wildcard kafka":     {func(c *Config) { c.Kafka = ":9092" }, "add --kafka-advertise HOST:9092"},
		"wildcard, told":     {func(c *Config) { c.Kafka, c.KafkaAdvertise = ":9092", "h:9092" }, "no access control"},
		"advertise nothing":  {func(c *Config) { c.KafkaAdvertise = "0.0.0.0:9092" }, "as clients reach it"},
		"advertise port 0":   {func(c *Config) { c.KafkaAdvertise = "h:0" }, "as clients reach it"},
		"partitions 3":       {func(c *Config) { c.Partitions = 3 }, "not a power of two"},
		"partitions 0":       {func(c *Config) { c.Partitions = 0 }, "not a power of two"},
		"partitions -2":      {func(c *Config) { c.Partitions = -2 }, "not a power of two"},
		"partitions 2048":    {func(c *Config) { c.Partitions = 2048 }, "not a power of two"},
		"brokers":            {func(c *Config) { c.Brokers = []string{"a:9092"} }, "the embedded log alone"},
		"no data":            {func(c *Config) { c.Data = "" }, "--data is empty"},
		"cert alone":         {func(c *Config) { c.TLSCert = "c" }, "belong together"},
		"key alone":          {func(c *Config) { c.TLSKey = "k" }, "belong together"},
		"client CA alone":    {func(c *Config) { c.TLSClientCA = "a" }, "needs --tls-cert"},
		"log level":          {func(c *Config) { c.LogLevel = "loud" }, "debug, info, warn, error"},
		"log format":         {func(c *Config) { c.LogFormat = "xml" }, "text, json"},
	} {
		err := valid(c.change)
		if err == nil || !strings.Contains(err.Error(), c.want) || exitCode(err) != exitUsage {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	err := valid(func(c *Config) { c.Data, c.Partitions, c.HTTP = "", 3, "x" })
	if n := strings.Count(err.Error(), "\n"); n != 2 {
		t.Errorf("not all at once: %v", err)
	}
}
