package when

import "github.com/remitlog/remit/log"

type Attributes map[string]int64
type Condition struct{}

func Compile(string) (*Condition, error)                    { return &Condition{}, nil }
func (*Condition) Holds(*log.Event, Attributes) (bool, error) { return true, nil }
