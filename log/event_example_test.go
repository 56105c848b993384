package log_test

import (
	"fmt"
	"time"

	"github.com/remitlog/remit/log"
)

// An event is written as a record in binary mode, and read back from it.
func ExampleEvent_Record() {
	e := log.Event{
		ID: "1234-1234-1234", Source: "/mycontext/subcontext", Type: "com.example.someevent",
		Time: time.Date(2018, 4, 5, 3, 56, 24, 0, time.UTC), DataContentType: log.JSONContentType,
		Key: "mykey", Data: []byte(`{"amount":"12.50"}`),
	}
	r := e.Record(log.Partition{Topic: "mytopic"})
	fmt.Printf("key: %s\n", r.Key)
	for _, h := range r.Headers {
		fmt.Printf("%s: %s\n", h.Key, h.Value)
	}
	fmt.Printf("\n%s\n\n", r.Value)

	back, err := log.ParseRecord(r)
	fmt.Println(back.ID, back.Key, err)
	// Output:
	// key: mykey
	// ce_specversion: 1.0
	// ce_id: 1234-1234-1234
	// ce_source: /mycontext/subcontext
	// ce_type: com.example.someevent
	// ce_time: 2018-04-05T03:56:24Z
	// ce_partitionkey: mykey
	// content-type: application/json
	//
	// {"amount":"12.50"}
	//
	// 1234-1234-1234 mykey <nil>
}

// Events inside other JSON are structured events there.
func ExampleEvent_MarshalStructured() {
	e := log.Event{
		ID: "1", Source: "/shop", Type: "com.example.ordered", DataContentType: "text/plain",
		Extensions: map[string]any{"retries": int32(5), "urgent": true}, Data: []byte("two teas"),
	}
	b, err := e.MarshalStructured()
	fmt.Println(string(b), err)
	// Output:
	// {"specversion":"1.0","id":"1","source":"/shop","type":"com.example.ordered","datacontenttype":"text/plain","retries":5,"urgent":true,"data":"two teas"} <nil>
}
