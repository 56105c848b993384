package groups

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// call is a request with the place for its answer. It is answered once.
type call[Q kmsg.Request, R kmsg.Response] struct {
	req    Q
	client Client
	answer chan R // of 1: to answer never waits
}

func newCall[Q kmsg.Request, R kmsg.Response](client Client, req Q) *call[Q, R] {
	return &call[Q, R]{req: req, client: client, answer: make(chan R, 1)}
}

// reply returns an empty answer in the request's version.
func (c *call[Q, R]) reply() R { return c.req.ResponseKind().(R) }

func reply[R kmsg.Response](req kmsg.Request) R { return req.ResponseKind().(R) }

type (
	joinCall = call[*kmsg.JoinGroupRequest, *kmsg.JoinGroupResponse]
	syncCall = call[*kmsg.SyncGroupRequest, *kmsg.SyncGroupResponse]
)

func refuseJoin(c *joinCall, id string, err *kerr.Error) {
	r := c.reply()
	r.ErrorCode, r.MemberID, r.Generation = err.Code, id, -1
	c.answer <- r
}

func refuseSync(c *syncCall, err *kerr.Error) {
	r := c.reply()
	r.ErrorCode, r.MemberAssignment = err.Code, []byte{}
	c.answer <- r
}

func code(err *kerr.Error) int16 {
	if err == nil {
		return 0
	}
	return err.Code
}
