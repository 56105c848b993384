package main

import (
	"cmp"
	"errors"
	"fmt"
	"math/bits"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"

	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/remitlog/remit/cmd/remit/api"
	"github.com/remitlog/remit/log"
)

// Config is what a server is started with. [options] says what each field is.
type Config struct {
	Data             string
	HTTP             string
	Kafka            string
	KafkaAdvertise   string
	Partitions       int
	Brokers          []string
	AutoCreateTopics bool
	AllowClockBehind bool
	CallsTo          []string
	Origin           string
	TLSCert          string
	TLSKey           string
	TLSClientCA      string
	LogLevel         string
	LogFormat        string
}

// option is one row of the configuration: the flag --name, the variable REMIT_NAME and the key name of the file.
type option struct {
	name string
	kind string // string, number, bool, list
	def  string
	help string
	// secret: it has no flag, since others see command lines; it may be read from a file by REMIT_NAME_FILE, and is never printed.
	secret bool
	set    func(*Config, string) error
	get    func(*Config) string
}

// options is the whole configuration, in the order in which it is printed.
var options = []option{
	text("data", "./.remit", "directory of the log and of everything made from it", func(c *Config) *string { return &c.Data }),
	text("http", "127.0.0.1:8080", "address of the HTTP API; port 0 picks one", func(c *Config) *string { return &c.HTTP }),
	text("kafka", "127.0.0.1:9092", "address of the Kafka API; port 0 picks one", func(c *Config) *string { return &c.Kafka }),
	text("kafka-advertise", "", "HOST:PORT that Kafka clients are told to connect to", func(c *Config) *string { return &c.KafkaAdvertise }),
	number("partitions", strconv.Itoa(log.PartitionsDefault), "core partitions of a new log, a power of two up to 1024; fixed once it is made", func(c *Config) *int { return &c.Partitions }),
	list("brokers", "HOST:PORT,... of a Kafka cluster to use instead of the embedded log", func(c *Config) *[]string { return &c.Brokers }),
	boolean("auto-create-topics", "make a topic when something is first written to it (remit dev always does)", func(c *Config) *bool { return &c.AutoCreateTopics }),
	boolean("allow-clock-behind", "start although the wall clock is more than a minute behind the log", func(c *Config) *bool { return &c.AllowClockBehind }),
	list("calls-to", "networks beside the public ones that producers and sinks may be called in: loopback, private (remit dev adds loopback)", func(c *Config) *[]string { return &c.CallsTo }),
	text("origin", "", "the DNS name that sinks of subscriptions are asked for consent under (default this machine's name)", func(c *Config) *string { return &c.Origin }),
	text("tls-cert", "", "file of the certificate, PEM; with --tls-key", func(c *Config) *string { return &c.TLSCert }),
	text("tls-key", "", "file of its key, PEM", func(c *Config) *string { return &c.TLSKey }),
	text("tls-client-ca", "", "file of the CA whose certificates clients must show, PEM", func(c *Config) *string { return &c.TLSClientCA }),
	text("log-level", "info", "debug, info, warn or error", func(c *Config) *string { return &c.LogLevel }),
	text("log-format", "text", "text or json", func(c *Config) *string { return &c.LogFormat }),
}

func text(name, def, help string, field func(*Config) *string) option {
	return option{name: name, kind: "string", def: def, help: help,
		set: func(c *Config, s string) error { *field(c) = s; return nil },
		get: func(c *Config) string { return *field(c) }}
}

func number(name, def, help string, field func(*Config) *int) option {
	return option{name: name, kind: "number", def: def, help: help,
		set: func(c *Config, s string) (err error) {
			if *field(c), err = strconv.Atoi(s); err != nil {
				return fmt.Errorf("%q is not a whole number", s)
			}
			return nil
		},
		get: func(c *Config) string { return strconv.Itoa(*field(c)) }}
}

func boolean(name, help string, field func(*Config) *bool) option {
	return option{name: name, kind: "bool", def: "false", help: help,
		set: func(c *Config, s string) error {
			if s != "true" && s != "false" {
				return fmt.Errorf("%q is neither true nor false", s)
			}
			*field(c) = s == "true"
			return nil
		},
		get: func(c *Config) string { return strconv.FormatBool(*field(c)) }}
}

func list(name, help string, field func(*Config) *[]string) option {
	return option{name: name, kind: "list", help: help,
		set: func(c *Config, s string) error {
			*field(c) = nil
			for part := range strings.SplitSeq(s, ",") {
				if part = strings.TrimSpace(part); part != "" {
					*field(c) = append(*field(c), part)
				}
			}
			return nil
		},
		get: func(c *Config) string { return strings.Join(*field(c), ",") }}
}

// envName is the variable of an option: REMIT_KAFKA_ADVERTISE.
func (o option) envName() string {
	return "REMIT_" + strings.ToUpper(strings.ReplaceAll(o.name, "-", "_"))
}

// otherEnv are the variables under REMIT_ that are no option. REMIT_SHARED is where the tests find files from beside the project.
var otherEnv = []string{"REMIT_CONFIG", "REMIT_SERVER", "REMIT_SHARED"}

// serviceEnv matches what Kubernetes sets in every container beside a service called remit, or remit-something.
var serviceEnv = regexp.MustCompile(`^REMIT(_\w+)?_(SERVICE_HOST=|SERVICE_PORT(_\w+)?=\d|PORT=\w+://|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?=)`)

// checkEnv refuses variables under REMIT_ that mean nothing, as keys of the file that mean nothing are: they are typing mistakes.
func checkEnv(opts []option, environ []string) error {
	known := slices.Clone(otherEnv)
	for _, o := range opts {
		known = append(known, o.envName())
		if o.secret {
			known = append(known, o.envName()+"_FILE")
		}
	}
	var errs []error
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, "REMIT_") || slices.Contains(known, name) || serviceEnv.MatchString(kv) {
			continue
		}
		if near := api.Nearest(name, known); near != "" {
			errs = append(errs, fmt.Errorf("%s is set, and is nothing that remit knows; did you mean %s?", name, near))
		} else {
			errs = append(errs, fmt.Errorf("%s is set, and is nothing that remit knows; unset it", name))
		}
	}
	return errors.Join(errs...)
}

// loader finds what each option is: a flag, then REMIT_*, then the file, then the default.
type loader struct {
	options []option
	flags   map[string]*flagValue
	file    string // --config
	environ map[string]string

	config  Config
	sources map[string]string // by option: where its value came from
	unknown error             // of variables that mean nothing
}

// flagValue is what was given on the command line.
type flagValue struct {
	option option
	text   string
	given  bool
}

func (f *flagValue) String() string { return f.text }
func (f *flagValue) Type() string   { return f.option.kind }

func (f *flagValue) Set(s string) error {
	f.text, f.given = s, true
	return f.option.set(new(Config), s) // a value that cannot be is an error of the command line
}

// newLoader gives flags an option each, and --config.
func newLoader(opts []option, flags *pflag.FlagSet, environ []string) *loader {
	l := &loader{options: opts, flags: map[string]*flagValue{}, environ: map[string]string{}, sources: map[string]string{}, unknown: checkEnv(opts, environ)}
	for _, kv := range environ {
		if name, value, ok := strings.Cut(kv, "="); ok && strings.HasPrefix(name, "REMIT_") {
			l.environ[name] = value
		}
	}
	for _, o := range opts {
		if o.secret {
			continue
		}
		v := &flagValue{option: o, text: o.def}
		l.flags[o.name] = v
		flag := flags.VarPF(v, o.name, "", o.help+" (env "+o.envName()+")")
		if o.kind == "bool" {
			flag.NoOptDefVal = "true"
		}
	}
	flags.StringVar(&l.file, "config", "", "YAML file with these options (env REMIT_CONFIG)")
	return l
}

// load reads all sources. The errors are all of those that there are, and are usage errors.
func (l *loader) load() (Config, error) {
	l.config.EnsureDefaults(l.options)
	for _, o := range l.options {
		l.sources[o.name] = "default"
	}
	errs := []error{l.loadFile(), l.loadEnv(), l.loadFlags()}
	if err := errors.Join(errs...); err != nil {
		return Config{}, usageErrorf("%w", err)
	}
	return l.config, nil
}

func (l *loader) put(o option, value, source string) error {
	if err := o.set(&l.config, value); err != nil {
		return fmt.Errorf("%s, from %s: %w", o.name, source, err)
	}
	l.sources[o.name] = source
	return nil
}

func (l *loader) loadFlags() error {
	var errs []error
	for _, o := range l.options {
		if f := l.flags[o.name]; f != nil && f.given {
			errs = append(errs, l.put(o, f.text, "flag --"+o.name))
		}
	}
	return errors.Join(errs...)
}

// loadEnv reads REMIT_*, and REMIT_*_FILE for secrets.
func (l *loader) loadEnv() error {
	errs := []error{l.unknown}
	for _, o := range l.options {
		name := o.envName()
		value, given := l.environ[name]
		if o.secret {
			file := name + "_FILE"
			path, fromFile := l.environ[file]
			switch {
			case given && fromFile:
				errs = append(errs, fmt.Errorf("%s and %s are both set; set one", name, file))
				continue
			case fromFile:
				errs = append(errs, l.putSecret(o, path, "env "+file))
				continue
			}
		}
		if given {
			errs = append(errs, l.put(o, value, "env "+name))
		}
	}
	return errors.Join(errs...)
}

// putSecret reads a secret from its own file; one newline at its end is the editor's.
func (l *loader) putSecret(o option, path, source string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("%s, from %s: %w", o.name, source, err)
	}
	return l.put(o, strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r"), source)
}

// loadFile reads the YAML file, if there is one: a flat map of option names.
func (l *loader) loadFile() error {
	path := cmp.Or(l.file, l.environ["REMIT_CONFIG"])
	if path == "" {
		return nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("--config: %w", err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if len(doc.Content) == 0 {
		return nil // empty, or comments alone
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return fmt.Errorf("%s:%d: write options as lines of `name: value`", path, root.Line)
	}
	return l.loadMap(path, root)
}

func (l *loader) loadMap(path string, root *yaml.Node) error {
	var errs []error
	seen := map[string]bool{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		where := fmt.Sprintf("%s:%d", path, key.Line)
		at := slices.IndexFunc(l.options, func(o option) bool { return o.name == key.Value })
		switch {
		case at < 0:
			errs = append(errs, fmt.Errorf("%s: %s", where, l.unknownKey(key.Value)))
			continue
		case seen[key.Value]:
			errs = append(errs, fmt.Errorf("%s: %s is given twice", where, key.Value))
			continue
		}
		seen[key.Value] = true
		s, err := scalar(l.options[at], value)
		if err == nil {
			err = l.put(l.options[at], s, "file "+where)
		} else {
			err = fmt.Errorf("%s: %s: %w", where, key.Value, err)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (l *loader) unknownKey(key string) string {
	var known []string
	for _, o := range l.options {
		known = append(known, o.name)
	}
	if near := api.Nearest(key, known); near != "" {
		return fmt.Sprintf("unknown option %q; did you mean %s?", key, near)
	}
	return fmt.Sprintf("unknown option %q; there are %s", key, strings.Join(known, ", "))
}

// scalar returns the text of a value; a list may be written as one.
func scalar(o option, n *yaml.Node) (string, error) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag != "!!null":
		return n.Value, nil
	case n.Kind == yaml.SequenceNode && o.kind == "list":
		var parts []string
		for _, e := range n.Content {
			s, err := scalar(option{}, e)
			if err != nil {
				return "", err
			}
			parts = append(parts, s)
		}
		return strings.Join(parts, ","), nil
	case n.Kind == yaml.ScalarNode:
		return "", errors.New("it has no value; leave the line out, or give it one")
	default:
		return "", fmt.Errorf("give it a %s", o.kind)
	}
}

// EnsureDefaults gives every option that is zero its default.
func (c *Config) EnsureDefaults(opts []option) {
	for _, o := range opts {
		if v := o.get(c); v != "" && v != "0" && v != "false" {
			continue
		}
		if err := o.set(c, o.def); err != nil {
			panic("remit: the default of " + o.name + " cannot be: " + err.Error())
		}
	}
}

// Validate says everything that is wrong, before any data is touched. The error is a usage error.
func (c Config) Validate() error {
	err := errors.Join(c.validateData(), c.validateListen("http", c.HTTP), c.validateListen("kafka", c.Kafka),
		c.validateAdvertise(), c.validateTLS(), c.validateCallsTo(), c.validateOrigin(), oneOf("log-level", c.LogLevel, "debug", "info", "warn", "error"),
		oneOf("log-format", c.LogFormat, "text", "json"))
	if err != nil {
		return usageErrorf("%w", err)
	}
	return nil
}

func (c Config) validateCallsTo() error {
	for _, network := range c.CallsTo {
		if err := oneOf("calls-to", network, toLoopback, toPrivate); err != nil {
			return err
		}
	}
	return nil
}

// originForm is a DNS name: it stands in the header of every call to a sink.
var originForm = regexp.MustCompile(`^[A-Za-z0-9.-]{0,253}$`)

func (c Config) validateOrigin() error {
	if !originForm.MatchString(c.Origin) {
		return fmt.Errorf("--origin %q is not a DNS name such as payments.example", c.Origin)
	}
	return nil
}

func (c Config) validateData() error {
	var errs []error
	if c.Data == "" {
		errs = append(errs, errors.New("--data is empty; say where the log is kept"))
	}
	if len(c.Brokers) > 0 {
		errs = append(errs, errors.New("--brokers: this build has the embedded log alone and cannot use a Kafka cluster; leave it out"))
	}
	if c.Partitions < 1 || c.Partitions > log.PartitionsMax || bits.OnesCount(uint(c.Partitions)) != 1 {
		errs = append(errs, fmt.Errorf("--partitions %d is not a power of two from 1 to %d", c.Partitions, log.PartitionsMax))
	}
	return errors.Join(errs...)
}

// validateListen takes loopback addresses alone: nobody is asked who they are.
func (c Config) validateListen(name, address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("--%s %q is not HOST:PORT, such as 127.0.0.1:8080", name, address)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("--%s %q: the port %q is not a number from 0 to 65535", name, address, port)
	} else if name == "kafka" && isWildcard(host) && c.KafkaAdvertise == "" {
		return fmt.Errorf("--kafka %s listens on every address, and clients must be told one: add --kafka-advertise HOST:%d", address, cmp.Or(n, 9092))
	}
	if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
		return fmt.Errorf("--%s %s can be reached from beyond this machine, and this build has no access control: whoever reaches it could move money. Listen on 127.0.0.1, localhost or [::1]", name, address)
	}
	return nil
}

func isWildcard(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && ip.IsUnspecified()
}

func (c Config) validateAdvertise() error {
	if c.KafkaAdvertise == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(c.KafkaAdvertise)
	if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || n == 0 || isWildcard(host) {
		return fmt.Errorf("--kafka-advertise %q is not the HOST:PORT of this machine, as clients reach it", c.KafkaAdvertise)
	}
	return nil
}

func (c Config) validateTLS() error {
	var errs []error
	if (c.TLSCert == "") != (c.TLSKey == "") {
		errs = append(errs, errors.New("--tls-cert and --tls-key belong together; give both or none"))
	}
	if c.TLSClientCA != "" && c.TLSCert == "" {
		errs = append(errs, errors.New("--tls-client-ca needs --tls-cert and --tls-key"))
	}
	return errors.Join(errs...)
}

func oneOf(name, value string, words ...string) error {
	if slices.Contains(words, value) {
		return nil
	}
	return fmt.Errorf("--%s %q is not one of %s", name, value, strings.Join(words, ", "))
}

// dataDir is Data as an absolute path, as the banner says it.
func (c Config) dataDir() string {
	abs, err := filepath.Abs(c.Data)
	if err != nil { // the working directory is gone: the relative path is the best there is
		return c.Data
	}
	return abs
}
