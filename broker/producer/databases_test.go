package producer_test

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"

	"github.com/remitlog/remit/broker/producer"
	"github.com/remitlog/remit/consumers/dbtest"
)

// databases are those that a test runs on.
var databases = []struct {
	dialect producer.Dialect
	driver  string
	open    func(*testing.T) (dsn string) // of a database of its own
}{
	{producer.PostgreSQL, "pgx", postgreSQL},
	{producer.MySQL, "mysql", func(t *testing.T) string {
		dsn := mariaDB.dsn(t)
		name := create(t, "mysql", dsn)
		return strings.Replace(dsn, "/test", "/"+name, 1)
	}},
	{producer.SQLite, "sqlite", func(t *testing.T) string {
		return "file:" + filepath.Join(t.TempDir(), "db") + "?_pragma=busy_timeout(10000)"
	}},
}

func postgreSQL(t *testing.T) string {
	dsn := postgres.dsn(t)
	name := create(t, "pgx", dsn)
	return strings.Replace(dsn, "database=postgres", "database="+name, 1)
}

var made atomic.Int64 // databases

func create(t *testing.T, driver, dsn string) (name string) {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	name = fmt.Sprint("shop", made.Add(1))
	if _, err := db.ExecContext(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	return name
}

// server is a database server that is started once, and ends when all tests have.
type server struct {
	testing.TB
	start   func(testing.TB) string
	at      string
	cleanup []func()
}

var postgres, mariaDB = &server{start: dbtest.PostgreSQL}, &server{start: dbtest.MariaDB}

func (s *server) dsn(t *testing.T) string {
	t.Helper()
	if s.at == "" {
		s.TB = t
		s.at = s.start(s)
	}
	return s.at
}

func (s *server) Cleanup(f func()) { s.cleanup = append(s.cleanup, f) }

// Error is called when the test that started it has ended.
func (*server) Error(args ...any) { fmt.Fprintln(os.Stderr, args...) }

func (s *server) stop() {
	for i := range s.cleanup {
		s.cleanup[len(s.cleanup)-1-i]()
	}
}

// onEach runs a test on every database that is there, with a shop of its own.
func onEach(t *testing.T, test func(t *testing.T, s *shop)) {
	for i, d := range databases {
		t.Run(string(d.dialect), func(t *testing.T) { test(t, on(t, i)) })
	}
}

// onSQLite is for what is the same on all.
func onSQLite(t *testing.T) *shop { return on(t, len(databases)-1) }

func on(t *testing.T, i int) *shop {
	t.Helper()
	d := databases[i]
	db, err := sql.Open(d.driver, d.open(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return newShop(t, db, d.dialect)
}
