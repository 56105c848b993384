package consumers_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/remitlog/remit/consumers"
	"github.com/remitlog/remit/consumers/consumerstest"
	"github.com/remitlog/remit/log"
)

// paid is a payment's event on topic payments, as others see it.
func paid(payer, id string) log.Record {
	e := log.Event{
		ID: id, Source: "/remit", Type: "remit.payment.paid.v1", Key: payer,
		DataContentType: log.JSONContentType, Data: []byte(`{"amount":"12.50","currency":"EUR"}`),
	}
	return e.Record(log.Partition{Topic: "payments"})
}

// run runs a Consumer until n deliveries were handled or parked.
func run(o consumers.Options, n int) {
	done := make(chan struct{}, n)
	handled, parked := o.Listener.Handled, o.Listener.Parked
	o.Listener.Handled = func(d consumers.Delivery, took time.Duration) {
		if handled != nil {
			handled(d, took)
		}
		done <- struct{}{}
	}
	o.Listener.Parked = func(d consumers.Delivery, reason string) {
		if parked != nil {
			parked(d, reason)
		}
		done <- struct{}{}
	}
	consumer, err := consumers.New(o)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- consumer.Run(ctx) }()
	for range n {
		<-done
	}
	stop()
	if err := <-ended; err != nil {
		fmt.Println(err)
	}
}

// A handler takes CloudEvents, those of one key in order. Its reader is log/kafka's where there is a cluster, or remit; here it is one in memory.
func Example() {
	broker := consumerstest.NewBroker(map[string]int{"payments": 1})
	broker.Append(paid("alice", "1"), paid("alice", "2"))

	run(consumers.Options{
		Reader: broker.Reader(), Group: "bookkeeping", Topics: []string{"payments"},
		Handler: func(_ context.Context, d consumers.Delivery) error {
			var data struct{ Amount, Currency string }
			if err := d.Event.DataAs(&data); err != nil {
				return consumers.Refuse(err) // no repetition mends it
			}
			fmt.Println(d.Event.Type(), d.Event.ID(), data.Amount, data.Currency)
			return nil
		},
	}, 2)
	fmt.Println("committed:", broker.Committed("bookkeeping", log.Partition{Topic: "payments"}))
	// Output:
	// remit.payment.paid.v1 1 12.50 EUR
	// remit.payment.paid.v1 2 12.50 EUR
	// committed: 2
}

// The effect and the note that the event was taken are one transaction. An event that comes again has no second effect.
func ExampleInTx() {
	db, err := sql.Open("sqlite", "file:example?mode=memory&cache=shared")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if _, err := db.Exec(consumers.Schema(consumers.SQLite) + `CREATE TABLE received (cents INTEGER); INSERT INTO received VALUES (0)`); err != nil {
		fmt.Println(err)
		return
	}
	broker := consumerstest.NewBroker(map[string]int{"payments": 1})
	broker.Append(paid("alice", "1"), paid("alice", "1"), paid("alice", "2"))

	run(consumers.Options{
		Reader: broker.Reader(), Group: "bookkeeping", Topics: []string{"payments"},
		Handler: consumers.InTx(db, consumers.SQLite, func(ctx context.Context, tx *sql.Tx, d consumers.Delivery) error {
			_, err := tx.ExecContext(ctx, "UPDATE received SET cents = cents + 1250")
			return err
		}),
	}, 3)

	var cents int
	if err := db.QueryRow("SELECT cents FROM received").Scan(&cents); err != nil {
		fmt.Println(err)
	}
	fmt.Println(cents)
	// Output: 2500
}

// What cannot be handled is set aside as it came, with the reason; the next of its key goes on.
func ExampleRefuse() {
	broker := consumerstest.NewBroker(map[string]int{"payments": 1})
	broker.Append(paid("alice", "1"), paid("alice", "2"))

	run(consumers.Options{
		Reader: broker.Reader(), Group: "bookkeeping", Topics: []string{"payments"},
		Handler: func(_ context.Context, d consumers.Delivery) error {
			if d.Event.ID() == "1" {
				return consumers.Refuse(errors.New("the book of 2025 is closed"))
			}
			fmt.Println("handled", d.Event.ID())
			return nil
		},
	}, 2)
	for _, r := range broker.Records("payments.parked") {
		e, err := log.ParseRecord(r)
		if err != nil {
			fmt.Println(err)
		}
		fmt.Println("parked", e.ID, "because", e.Extensions[consumers.ParkedReason])
	}
	// Output:
	// handled 2
	// parked 1 because the book of 2025 is closed
}

// A key that fails is tried again, after a growing time. Others do not wait for it.
func ExampleOptions_retry() {
	broker := consumerstest.NewBroker(map[string]int{"payments": 1})
	broker.Append(paid("alice", "1"), paid("alice", "2"), paid("bob", "3"))
	bob := make(chan struct{})

	run(consumers.Options{
		Reader: broker.Reader(), Group: "bookkeeping", Topics: []string{"payments"},
		BackoffMin: time.Millisecond, AttemptsMax: 5,
		Handler: func(_ context.Context, d consumers.Delivery) error {
			switch {
			case d.Event.ID() == "3":
				close(bob)
			case d.Attempt < 3:
				return errors.New("not now")
			default:
				<-bob // for the order of what is printed here
			}
			return nil
		},
		Listener: consumers.Listener{
			Handled: func(d consumers.Delivery, _ time.Duration) {
				fmt.Println("handled", d.Event.ID(), "at attempt", d.Attempt)
			},
		},
	}, 3)
	// Output:
	// handled 3 at attempt 1
	// handled 1 at attempt 3
	// handled 2 at attempt 3
}

// Records that are no CloudEvents are parked, unless there is a handler for them.
func ExampleOptions_notEvent() {
	broker := consumerstest.NewBroker(map[string]int{"payments": 1})
	broker.Append(log.Record{Partition: log.Partition{Topic: "payments"}, Value: []byte("alice;12.50")})

	run(consumers.Options{
		Reader: broker.Reader(), Group: "bookkeeping", Topics: []string{"payments"},
		Handler: func(context.Context, consumers.Delivery) error { return nil },
		NotEvent: func(_ context.Context, d consumers.Delivery) error {
			fmt.Printf("%s: %s\n", d, d.Record.Value)
			return nil
		},
	}, 1)
	// Output: payments/0/0: alice;12.50
}

// With pgx the transaction is the service's own.
func ExamplePGX() {
	var pool *pgxpool.Pool // pgxpool.New
	var handler consumers.Handler = func(ctx context.Context, d consumers.Delivery) error {
		return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			first, err := consumers.Once(ctx, consumers.PGX(tx), d)
			if err != nil || !first {
				return err
			}
			_, err = tx.Exec(ctx, "UPDATE received SET cents = cents + 1250")
			return err
		})
	}
	_ = handler
}

// Notes are forgotten by the service, when it knows that the events do not come again.
func ExampleForget() {
	var db *sql.DB // sql.Open
	daily := func(ctx context.Context) error {
		const kept = 90 * 24 * time.Hour // longer than any topic's retention
		_, err := consumers.Forget(ctx, consumers.SQL(db, consumers.PostgreSQL), time.Now().Add(-kept))
		return err
	}
	_ = daily
}
