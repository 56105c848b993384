package kafkaapi

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
)

// The configurations of a topic that can be chosen.
const (
	retentionMS    = "retention.ms"
	retentionBytes = "retention.bytes"
	cleanupPolicy  = "cleanup.policy"
)

// fixedConfigs are those that are as they are; to set one to what it is is no mistake.
var fixedConfigs = []config{
	{name: "compression.type", value: "producer", kind: kmsg.ConfigTypeString},
	{name: "max.message.bytes", value: strconv.Itoa(embedded.RawMax), kind: kmsg.ConfigTypeInt},
	{name: "message.timestamp.type", value: "CreateTime", kind: kmsg.ConfigTypeString},
	{name: "message.timestamp.after.max.ms", value: strconv.FormatInt(log.TimeAheadMax.Milliseconds(), 10), kind: kmsg.ConfigTypeLong},
	{name: "min.insync.replicas", value: "1", kind: kmsg.ConfigTypeInt},
	{name: "flush.messages", value: "1", kind: kmsg.ConfigTypeLong},
}

// config is one configuration as it is described.
type config struct {
	name, value string
	readOnly    bool
	source      kmsg.ConfigSource
	kind        kmsg.ConfigType
}

// configsOf are the configurations of a topic.
func configsOf(c log.TopicConfig) []config {
	own := func(name string, v, unset int64) config {
		k := config{name: name, value: "-1", source: kmsg.ConfigSourceDefaultConfig, kind: kmsg.ConfigTypeLong}
		if v != unset {
			k.value, k.source = strconv.FormatInt(v, 10), kmsg.ConfigSourceDynamicTopicConfig
		}
		return k
	}
	all := []config{
		{name: cleanupPolicy, value: "delete", source: kmsg.ConfigSourceDefaultConfig, kind: kmsg.ConfigTypeList},
		own(retentionMS, c.Retention.Milliseconds(), 0),
		own(retentionBytes, c.RetentionBytes, 0),
	}
	for _, k := range fixedConfigs {
		k.readOnly, k.source = true, kmsg.ConfigSourceDefaultConfig
		all = append(all, k)
	}
	if log.Reserved(c.Name) {
		for i := range all {
			all[i].readOnly = true
		}
	}
	slices.SortFunc(all, func(a, b config) int { return strings.Compare(a.name, b.name) })
	return all
}

// configure returns c with one configuration set; nil sets it to its default.
func configure(c log.TopicConfig, name string, value *string) (log.TopicConfig, error) {
	switch name {
	case retentionMS:
		n, err := limit(name, value)
		if err != nil || n > int64(1<<63-1)/int64(time.Millisecond) {
			return c, orForEver(&c, err)
		}
		c.Retention = time.Duration(n) * time.Millisecond
		return c, nil
	case retentionBytes:
		n, err := limit(name, value)
		c.RetentionBytes = n
		return c, err
	case cleanupPolicy:
		if value != nil && *value != "delete" {
			return c, refuse(kerr.InvalidConfig, fmt.Sprintf("%s=%s; the one there is is delete: records go when their time is over", name, *value))
		}
		return c, nil
	}
	for _, k := range fixedConfigs {
		if k.name == name && (value == nil || *value == k.value) {
			return c, nil
		}
		if k.name == name {
			return c, refuse(kerr.InvalidConfig, fmt.Sprintf("%s is always %s here; leave it out", name, k.value))
		}
	}
	return c, refuse(kerr.InvalidConfig, fmt.Sprintf("%s is not known; %s, %s and %s are", name, retentionMS, retentionBytes, cleanupPolicy))
}

// orForEver: more milliseconds than a duration can say are for ever.
func orForEver(c *log.TopicConfig, err error) error {
	if err == nil {
		c.Retention = 0
	}
	return err
}

// limit reads a number; -1 and none are no limit, which the log writes as 0. Kafka's 0 is the least there is: 1.
func limit(name string, value *string) (int64, error) {
	if value == nil {
		return 0, nil
	}
	n, err := strconv.ParseInt(*value, 10, 64)
	switch {
	case err != nil || n < -1:
		return 0, refuse(kerr.InvalidConfig, fmt.Sprintf("%s=%s; give a whole number, or -1 for no limit", name, *value))
	case n == -1:
		return 0, nil
	default:
		return max(n, 1), nil
	}
}

func (s *Server) describeConfigs(ctx context.Context, _ *conn, q *kmsg.DescribeConfigsRequest) *kmsg.DescribeConfigsResponse {
	r := kmsg.NewPtrDescribeConfigsResponse()
	r.Version = q.Version
	for i := range q.Resources {
		d := &q.Resources[i]
		rr := kmsg.NewDescribeConfigsResponseResource()
		rr.ResourceType, rr.ResourceName = d.ResourceType, d.ResourceName
		all, err := s.configsOf(ctx, d)
		for _, k := range all {
			if d.ConfigNames == nil || slices.Contains(d.ConfigNames, k.name) {
				rr.Configs = append(rr.Configs, k.described(q.IncludeSynonyms))
			}
		}
		rr.ErrorCode, rr.ErrorMessage = answer(err)
		r.Resources = append(r.Resources, rr)
	}
	return r
}

func (k config) described(synonyms bool) kmsg.DescribeConfigsResponseResourceConfig {
	d := kmsg.NewDescribeConfigsResponseResourceConfig()
	d.Name, d.Value, d.ReadOnly, d.Source, d.ConfigType = k.name, kmsg.StringPtr(k.value), k.readOnly, k.source, k.kind
	d.IsDefault = k.source == kmsg.ConfigSourceDefaultConfig
	if synonyms {
		y := kmsg.NewDescribeConfigsResponseResourceConfigConfigSynonym()
		y.Name, y.Value, y.Source = k.name, kmsg.StringPtr(k.value), k.source
		d.ConfigSynonyms = append(d.ConfigSynonyms, y)
	}
	return d
}

func (s *Server) configsOf(ctx context.Context, d *kmsg.DescribeConfigsRequestResource) ([]config, error) {
	switch {
	case d.ResourceType == kmsg.ConfigResourceTypeTopic:
		c, err := s.o.Log.Topic(ctx, d.ResourceName)
		if err != nil {
			return nil, err
		}
		return configsOf(c), nil
	case d.ResourceType == kmsg.ConfigResourceTypeBroker && (d.ResourceName == "" || d.ResourceName == strconv.Itoa(NodeID)):
		return s.nodeConfigs(), nil
	default:
		return nil, refuse(kerr.InvalidRequest, fmt.Sprintf("there is no %s %q; topics and broker %d have configurations", d.ResourceType, d.ResourceName, NodeID))
	}
}

// nodeConfigs are what tools ask a broker for. None can be changed here.
func (s *Server) nodeConfigs() []config {
	all := []config{
		{name: "auto.create.topics.enable", value: strconv.FormatBool(s.o.AutoCreate), kind: kmsg.ConfigTypeBoolean},
		{name: "default.replication.factor", value: "1", kind: kmsg.ConfigTypeInt},
		{name: "log.cleanup.policy", value: "delete", kind: kmsg.ConfigTypeList},
		{name: "log.retention.bytes", value: "-1", kind: kmsg.ConfigTypeLong},
		{name: "log.retention.ms", value: "-1", kind: kmsg.ConfigTypeLong},
		{name: "max.connections", value: strconv.Itoa(s.o.ConnectionsMax), kind: kmsg.ConfigTypeInt},
		{name: "message.max.bytes", value: strconv.Itoa(embedded.RawMax), kind: kmsg.ConfigTypeInt},
		{name: "num.partitions", value: strconv.Itoa(s.o.Partitions), kind: kmsg.ConfigTypeInt},
		{name: "offsets.retention.minutes", value: "-1", kind: kmsg.ConfigTypeInt},
		{name: "socket.request.max.bytes", value: strconv.Itoa(RequestBytesMax), kind: kmsg.ConfigTypeInt},
	}
	for i := range all {
		all[i].readOnly, all[i].source = true, kmsg.ConfigSourceStaticBrokerConfig
	}
	return all
}

// change is one configuration to be set; nil to its default.
type change struct {
	name  string
	value *string
}

// alterConfigs sets what is named, and all else to its default.
func (s *Server) alterConfigs(ctx context.Context, _ *conn, q *kmsg.AlterConfigsRequest) *kmsg.AlterConfigsResponse {
	r := kmsg.NewPtrAlterConfigsResponse()
	r.Version = q.Version
	for i := range q.Resources {
		a := &q.Resources[i]
		changes := []change{{name: retentionMS}, {name: retentionBytes}}
		for _, k := range a.Configs {
			changes = append(changes, change{k.Name, k.Value})
		}
		rr := kmsg.NewAlterConfigsResponseResource()
		rr.ResourceType, rr.ResourceName = a.ResourceType, a.ResourceName
		rr.ErrorCode, rr.ErrorMessage = answer(s.alter(ctx, a.ResourceType, a.ResourceName, changes, q.ValidateOnly))
		r.Resources = append(r.Resources, rr)
	}
	return r
}

func (s *Server) incrementalAlterConfigs(ctx context.Context, _ *conn, q *kmsg.IncrementalAlterConfigsRequest) *kmsg.IncrementalAlterConfigsResponse {
	r := kmsg.NewPtrIncrementalAlterConfigsResponse()
	r.Version = q.Version
	for i := range q.Resources {
		a := &q.Resources[i]
		changes, err := incremental(a.Configs)
		if err == nil {
			err = s.alter(ctx, a.ResourceType, a.ResourceName, changes, q.ValidateOnly)
		}
		rr := kmsg.NewIncrementalAlterConfigsResponseResource()
		rr.ResourceType, rr.ResourceName = a.ResourceType, a.ResourceName
		rr.ErrorCode, rr.ErrorMessage = answer(err)
		r.Resources = append(r.Resources, rr)
	}
	return r
}

func incremental(configs []kmsg.IncrementalAlterConfigsRequestResourceConfig) ([]change, error) {
	var changes []change
	for _, k := range configs {
		switch {
		case slices.ContainsFunc(changes, func(c change) bool { return c.name == k.Name }):
			return nil, refuse(kerr.InvalidRequest, k.Name+" is there more than once; change it once")
		case k.Op == kmsg.IncrementalAlterConfigOpSet && k.Value != nil:
			changes = append(changes, change{k.Name, k.Value})
		case k.Op == kmsg.IncrementalAlterConfigOpDelete:
			changes = append(changes, change{name: k.Name})
		case k.Op == kmsg.IncrementalAlterConfigOpSet:
			return nil, refuse(kerr.InvalidRequest, k.Name+" has no value; delete it to have the default")
		default: // append, subtract
			return nil, refuse(kerr.InvalidConfig, k.Name+" is no list that can be changed; set it")
		}
	}
	return changes, nil
}

func (s *Server) alter(ctx context.Context, kind kmsg.ConfigResourceType, name string, changes []change, validateOnly bool) error {
	switch {
	case kind != kmsg.ConfigResourceTypeTopic:
		return refuse(kerr.InvalidRequest, fmt.Sprintf("only topics are configured over this protocol, not a %s; see the options of the server", kind))
	case log.Reserved(name):
		return reservedError(name)
	}
	s.admin.Lock()
	defer s.admin.Unlock()
	was, err := s.o.Log.Topic(ctx, name)
	if err != nil {
		return err
	}
	c := was
	for _, k := range changes {
		if c, err = configure(c, k.name, k.value); err != nil {
			return err
		}
	}
	if validateOnly || c == was {
		return nil
	}
	return s.o.Log.ConfigureTopic(ctx, c)
}
