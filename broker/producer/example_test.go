package producer_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "modernc.org/sqlite"

	"github.com/remitlog/remit/broker/producer"
	"github.com/remitlog/remit/broker/producer/producertest"
)

// orderPlaced is the event of an order: its id is the order's, so that sending it again is safe.
func orderPlaced(order string) event.Event {
	e := event.New()
	e.SetID(order)
	e.SetSource("/shop")
	e.SetType("order.placed.v1")
	e.SetExtension("partitionkey", "alice")
	_ = e.SetData(event.ApplicationJSON, map[string]any{"cents": 1250}) // it is JSON
	return e
}

// exampleShop is a service with a database and a remit of its own; there is one over HTTP where remit runs.
func exampleShop(name string) (*sql.DB, *producertest.Remit, *producer.Producer[*sql.Tx]) {
	db, err := sql.Open("sqlite", "file:"+name+"?mode=memory&cache=shared")
	if err != nil {
		panic(err)
	}
	db.SetMaxOpenConns(1)
	if _, err := db.Exec(producer.Schema(producer.SQLite) + `CREATE TABLE orders (id TEXT PRIMARY KEY)`); err != nil {
		panic(err)
	}
	remit := producertest.New()
	p, err := producer.New(producer.SQL(db, producer.SQLite), producer.Options{Server: producertest.URL, Client: remit.Client(), Producer: "shop"})
	if err != nil {
		panic(err)
	}
	if err := p.Register(context.Background(), producer.Registration{Check: producer.Check{URL: "http://127.0.0.1:8081/remit/check"}}); err != nil {
		panic(err)
	}
	return db, remit, p
}

func placeOrder(id string) func(*sql.Tx) error {
	return func(tx *sql.Tx) error {
		_, err := tx.Exec("INSERT INTO orders VALUES (?)", id)
		return err
	}
}

// The order and its event are both there, or neither is.
func Example() {
	db, remit, p := exampleShop("example")
	defer db.Close()

	err := p.Send(context.Background(), "orders", orderPlaced("order-1"), placeOrder("order-1"))
	fmt.Println("order-1:", err)
	err = p.Send(context.Background(), "orders", orderPlaced("order-2"), func(tx *sql.Tx) error {
		if err := placeOrder("order-2")(tx); err != nil {
			return err
		}
		return errors.New("out of stock") // all of it is rolled back
	})
	fmt.Println("order-2:", err)

	for _, e := range remit.Delivered("orders") {
		fmt.Println("delivered:", e.Type(), e.ID(), string(e.Data()))
	}
	// Output:
	// order-1: <nil>
	// order-2: out of stock
	// delivered: order.placed.v1 order-1 {"cents":1250}
}

// Whoever had no answer sends again. An event is sent once.
func ExampleProducer_Send_again() {
	db, remit, p := exampleShop("again")
	defer db.Close()

	for range 2 {
		err := p.Send(context.Background(), "orders", orderPlaced("order-1"), placeOrder("order-1"))
		fmt.Println(err == nil, errors.Is(err, producer.ErrAlreadySent))
	}
	fmt.Println(len(remit.Delivered("orders")))
	// Output:
	// true false
	// false true
	// 1
}

// Several events of one transaction.
func ExampleProducer_SendAll() {
	db, remit, p := exampleShop("several")
	defer db.Close()

	reserved := orderPlaced("order-1/stock")
	reserved.SetType("stock.reserved.v1")
	err := p.SendAll(context.Background(), []producer.Message{
		{Topic: "orders", Event: orderPlaced("order-1")},
		{Topic: "stock", Event: reserved},
	}, placeOrder("order-1"))
	fmt.Println(err, len(remit.Delivered("orders")), len(remit.Delivered("stock")))
	// Output: <nil> 1 1
}

// When remit cannot be told, Send returns nil all the same: the transaction has committed. remit asks, and any process of the service answers.
func ExampleProducer_CheckHandler() {
	db, remit, p := exampleShop("check")
	defer db.Close()
	remit.Lose = func(r *http.Request) producertest.Loss {
		if r.Method == http.MethodPost && r.URL.Path != "/v1/topics/orders/messages" {
			return producertest.Request // no decision arrives
		}
		return producertest.Nothing
	}

	err := p.Send(context.Background(), "orders", orderPlaced("order-1"), placeOrder("order-1"))
	fmt.Println(err, remit.Messages()[0].State)
	if err := remit.Check(context.Background(), p.CheckHandler()); err != nil { // http.Handle("/remit/check", p.CheckHandler())
		fmt.Println(err)
	}
	fmt.Println(remit.Messages()[0].State)
	// Output:
	// <nil> prepared
	// delivered
}

// With pgx the function gets a pgx.Tx.
func ExamplePGX() {
	var pool *pgxpool.Pool // pgxpool.New
	start := func() error {
		p, err := producer.New(producer.PGX(pool), producer.Options{Server: "http://127.0.0.1:8080", Producer: "shop"})
		if err != nil {
			return err
		}
		return p.Send(context.Background(), "orders", orderPlaced("order-1"), func(tx pgx.Tx) error {
			_, err := tx.Exec(context.Background(), "INSERT INTO orders VALUES ($1)", "order-1")
			return err
		})
	}
	_ = start
}

// serializable begins transactions of another isolation.
type serializable struct{ *sql.DB }

func (s serializable) BeginTx(ctx context.Context, _ *sql.TxOptions) (*sql.Tx, error) {
	return s.DB.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelSerializable})
}

// For another isolation than the database's own, wrap it.
func ExampleSQL_isolation() {
	var db *sql.DB // sql.Open
	shop := producer.SQL(serializable{db}, producer.PostgreSQL)
	_ = shop
}

// A pre-check is asked before a committed message is delivered.
func ExampleProducer_PrecheckHandler() {
	db, _, p := exampleShop("precheck")
	defer db.Close()
	handler := p.PrecheckHandler(func(ctx context.Context, q producer.Question) (producer.Verdict, string, error) {
		var cancelled bool
		err := db.QueryRowContext(ctx, "SELECT count(*) = 0 FROM orders WHERE id = ?", q.Event.ID()).Scan(&cancelled)
		if cancelled {
			return producer.Drop, "the order was cancelled", err
		}
		return producer.Deliver, "", err
	})
	_ = handler // http.Handle("/remit/precheck", handler)
}

// Rows are forgotten by the service, when nobody repeats any more.
func ExampleProducer_Forget() {
	db, _, p := exampleShop("forget")
	defer db.Close()
	if err := p.Send(context.Background(), "orders", orderPlaced("order-1"), placeOrder("order-1")); err != nil {
		fmt.Println(err)
	}
	n, err := p.Forget(context.Background(), time.Now().Add(-90*24*time.Hour))
	fmt.Println(n, err)
	// Output: 0 <nil>
}
