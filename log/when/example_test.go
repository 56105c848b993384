package when_test

import (
	"fmt"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/when"
)

func Example() {
	condition, err := when.Compile("region = 'eu' AND remitage > 60")
	if err != nil {
		panic(err)
	}
	e := log.Event{ID: "1", Source: "/orders", Type: "order.placed", Extensions: map[string]any{"region": "eu"}}
	fmt.Println(condition.Holds(&e, when.Attributes{"remitage": 61}))

	delete(e.Extensions, "region")
	holds, err := condition.Holds(&e, nil)
	fmt.Println(holds, err, when.Missing(err))

	_, err = when.Compile("region = 'eu' AND NOT type = 'x'")
	fmt.Println(err)
	// Output:
	// true <nil>
	// false when: "region = 'eu' AND remitage > 60": the event has no attribute "region" true
	// when: not a condition: character 28: NOT binds closer than =: put parentheses around what NOT is for
}
