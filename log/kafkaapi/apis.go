package kafkaapi

import (
	"bytes"
	"context"
	"reflect"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/remitlog/remit/log/kafkaapi/groups"
)

// Keys of requests that are treated apart.
const (
	keyProduce       = 0
	keyFetch         = 1
	keyJoinGroup     = 11
	keySyncGroup     = 14
	keySASLHandshake = 17
	keyApiVersions   = 18
	keySASLAuth      = 36
)

// handler answers one kind of request. No answer (acks=0) is nil.
type handler func(*Server, context.Context, *conn, kmsg.Request) kmsg.Response

// api is one kind of request that is served, in the versions from min on up to that of its shape.
type api struct {
	min   int16
	serve handler
}

// as makes a handler of one for its type.
func as[Q kmsg.Request, R kmsg.Response](f func(*Server, context.Context, *conn, Q) R) handler {
	return func(s *Server, ctx context.Context, c *conn, q kmsg.Request) kmsg.Response {
		return f(s, ctx, c, q.(Q))
	}
}

// apis are all but those of consumer groups. The oldest versions are Kafka's own; before Produce 3 and Fetch 4 records have
// another format.
var apis = map[int16]api{
	keyProduce:     {3, nil}, // conn.produce
	keyFetch:       {4, as((*Server).fetch)},
	2:              {1, as((*Server).listOffsets)},
	3:              {0, as((*Server).metadata)},
	10:             {0, as((*Server).findCoordinator)},
	keyApiVersions: {0, as((*Server).apiVersions)},
	19:             {2, as((*Server).createTopics)},
	20:             {1, as((*Server).deleteTopics)},
	21:             {0, as((*Server).deleteRecords)},
	22:             {0, as((*Server).initProducerID)},
	23:             {2, as((*Server).offsetForLeaderEpoch)},
	32:             {1, as((*Server).describeConfigs)},
	33:             {0, as((*Server).alterConfigs)},
	35:             {1, as((*Server).describeLogDirs)},
	37:             {0, as((*Server).createPartitions)},
	44:             {0, as((*Server).incrementalAlterConfigs)},
	46:             {0, as((*Server).listPartitionReassignments)},
	60:             {0, as((*Server).describeCluster)},
}

// version is a range of versions.
type version struct{ min, max int16 }

// served returns what the server advertises.
func served() map[int16]version {
	m := map[int16]version{}
	for key, a := range apis {
		m[key] = version{a.min, shapes[key].max}
	}
	for key, newest := range groups.MaxVersions() {
		m[key] = version{groupMin[key], min(newest, shapes[key].max)}
	}
	return m
}

func (s *Server) apiVersions(_ context.Context, _ *conn, q *kmsg.ApiVersionsRequest) *kmsg.ApiVersionsResponse {
	r := kmsg.NewPtrApiVersionsResponse()
	r.Version = q.Version
	for key, v := range s.versions {
		r.ApiKeys = append(r.ApiKeys, apiKey(key, v))
	}
	return r
}

func apiKey(key int16, v version) kmsg.ApiVersionsResponseApiKey {
	k := kmsg.NewApiVersionsResponseApiKey()
	k.ApiKey, k.MinVersion, k.MaxVersion = key, v.min, v.max
	return k
}

// otherApiVersions answers an ApiVersions request above the maximum: in version 0, with the range. The client asks again.
func (s *Server) otherApiVersions() kmsg.Response {
	r := kmsg.NewPtrApiVersionsResponse()
	r.ErrorCode = kerr.UnsupportedVersion.Code
	r.ApiKeys = append(r.ApiKeys, apiKey(keyApiVersions, s.versions[keyApiVersions]))
	return r
}

// refusal answers a request that is not served with UNSUPPORTED_VERSION, or ILLEGAL_SASL_STATE, where its answer has a place for
// that; nil where it has none, and the connection is to be closed.
func refusal(key, version int16) kmsg.Response {
	q := kmsg.RequestForKey(key)
	if q == nil || version < 0 || version > q.MaxVersion() {
		return nil
	}
	q.SetVersion(version)
	r := q.ResponseKind()
	if d, ok := r.(interface{ Default() }); ok {
		d.Default()
	}
	code := reflect.ValueOf(r).Elem().FieldByName("ErrorCode")
	if !code.IsValid() || code.Kind() != reflect.Int16 {
		return nil
	}
	r.SetVersion(version)
	without := r.AppendTo(nil)
	why := kerr.UnsupportedVersion
	if key == keySASLHandshake || key == keySASLAuth {
		why = kerr.IllegalSaslState
	}
	code.SetInt(int64(why.Code))
	if bytes.Equal(without, r.AppendTo(nil)) { // this version has no place for it
		return nil
	}
	return r
}
