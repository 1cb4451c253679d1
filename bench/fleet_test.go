package bench

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/gorm-tenancy/tenancy/catalog"
	tenancygoose "github.com/gorm-tenancy/tenancy/contrib/goose"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/migrate"
)

var fleetTenants = flag.Int("fleet-tenants", 1000, "tenants of BenchmarkFleet")

// alters are goose's files up to a version: a table, then one more column each.
func alters(version int) fs.FS {
	files := fstest.MapFS{"00001_notes.sql": {Data: []byte("-- +goose Up\nCREATE TABLE notes (id bigserial PRIMARY KEY, text text);\n")}}
	for v := 2; v <= version; v++ {
		files[fmt.Sprintf("%05d_column.sql", v)] = &fstest.MapFile{
			Data: fmt.Appendf(nil, "-- +goose Up\nALTER TABLE notes ADD COLUMN c%d text;\n", v)}
	}
	return files
}

func gooseTo(b *testing.B, version int) migrate.Migrator {
	b.Helper()
	m, err := tenancygoose.New(tenancygoose.Config{Dialect: goose.DialectPostgres, FS: alters(version)})
	if err != nil {
		b.Fatal(err)
	}
	return m
}

// BenchmarkFleet brings all tenants forward. "tenancy" is
// Catalog.MigrateTenants, with the goose adapter; "goose" is what one would
// write otherwise: as many workers, each of which takes the next database,
// opens it, makes a goose.Provider, calls Up and closes it. It keeps no books,
// and has no locks. They take turns with the same databases, each with a
// migration of its own.
//
// alter adds one column to each tenant, noop has nothing to do. latency is
// alter with 2 ms added to each round trip, to the main database too.
func BenchmarkFleet(b *testing.B) {
	// Many new databases are files in the cache that a checkpoint would write
	// out in the middle of somebody's turn.
	s := newSite(b, pgtest.Setting("max_wal_size", "8GB"), pgtest.Setting("checkpoint_timeout", "1h"))
	f := &fleetBench{s: s, version: 1}
	cat, _ := s.open(b, func(cfg *catalog.Config) { cfg.Migrator = gooseTo(b, 1) })
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := w; i < *fleetTenants; i += 4 {
				if _, err := cat.Create(context.Background(), "t"+strconv.Itoa(i), catalog.CreateOptions{}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	for t, err := range cat.List(b.Context(), catalog.Filter{}) {
		if err != nil {
			b.Fatal(err)
		}
		f.databases = append(f.databases, t.Database)
	}
	s.pg.Exec(b, "postgres", "CHECKPOINT")

	b.Run("alter", func(b *testing.B) { f.alter(b, s, 8) })
	b.Run("noop", func(b *testing.B) {
		cat, _ := s.open(b, func(cfg *catalog.Config) { cfg.Migrator = gooseTo(b, f.version) })
		takeTurns(b, func(int) {},
			turn{"tenancy", func(int) time.Duration {
				began := time.Now()
				report, err := cat.MigrateTenants(b.Context(), migrate.Options{})
				took := time.Since(began)
				if err != nil || report.UpToDate != len(f.databases) {
					b.Fatal(report, err)
				}
				return took
			}},
			turn{"goose", func(int) time.Duration { return f.goose(b, s, 8) }})
	})
	b.Run("latency", func(b *testing.B) {
		proxy := delay(b, s.pg.Addr(), time.Millisecond)
		far := s
		for _, dsn := range []*string{&far.main, &far.app, &far.admin} {
			*dsn = strings.Replace(*dsn, s.pg.Addr(), proxy, 1)
		}
		f.alter(b, far, 8)
	})
}

type fleetBench struct {
	s         site
	databases []string
	version   int // of all databases
}

func (f *fleetBench) alter(b *testing.B, s site, workers int) {
	takeTurns(b, func(int) {},
		turn{"tenancy", func(int) time.Duration {
			f.version++
			cat, _ := s.open(b, func(cfg *catalog.Config) { cfg.Migrator = gooseTo(b, f.version) })
			began := time.Now()
			report, err := cat.MigrateTenants(b.Context(), migrate.Options{PerServer: workers})
			took := time.Since(began)
			if err != nil || report.Done != len(f.databases) {
				b.Fatal(report, err)
			}
			return took
		}},
		turn{"goose", func(int) time.Duration {
			f.version++
			took := f.goose(b, s, workers)
			// The catalog is told.
			_, fingerprint := gooseTo(b, f.version).Target()
			main := connect(b, f.s.main)
			defer main.Close(context.Background()) //nolint:errcheck // the server is ours
			if _, err := main.Exec(b.Context(), "UPDATE tenancy_tenants SET version = $1, fingerprint = $2", f.version, fingerprint); err != nil {
				b.Fatal(err)
			}
			return took
		}})
}

// goose is the bare loop.
func (f *fleetBench) goose(b *testing.B, s site, workers int) time.Duration {
	files := alters(f.version)
	base, err := pgx.ParseConfig(s.admin)
	if err != nil {
		b.Fatal(err)
	}
	next := make(chan string)
	var wg sync.WaitGroup
	began := time.Now()
	for range workers {
		wg.Go(func() {
			for name := range next {
				if err := gooseUp(base, name, files); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for _, name := range f.databases {
		next <- name
	}
	close(next)
	wg.Wait()
	return time.Since(began)
}

func gooseUp(base *pgx.ConnConfig, name string, files fs.FS) error {
	cfg := base.Copy()
	cfg.Database = name
	db := sql.OpenDB(stdlib.GetConnector(*cfg))
	defer db.Close() //nolint:errcheck // its work is done
	p, err := goose.NewProvider(goose.DialectPostgres, db, files)
	if err != nil {
		return err
	}
	_, err = p.Up(context.Background())
	return err
}

// delay returns the address of a proxy to addr which holds up what is sent, for
// d in each direction.
func delay(b *testing.B, addr string, d time.Duration) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", addr)
			if err != nil {
				_ = client.Close()
				continue
			}
			go holdUp(server, client, d)
			go holdUp(client, server, d)
		}
	}()
	return l.Addr().String()
}

// holdUp copies from src to dst. What has been read is sent in time, while more
// is being read.
func holdUp(dst, src net.Conn, d time.Duration) {
	type chunk struct {
		b  []byte
		at time.Time
	}
	queue := make(chan chunk, 1024)
	go func() {
		defer close(queue)
		for {
			buf := make([]byte, 16<<10)
			n, err := src.Read(buf)
			if n > 0 {
				queue <- chunk{buf[:n], time.Now().Add(d)}
			}
			if err != nil {
				return
			}
		}
	}()
	for c := range queue {
		time.Sleep(time.Until(c.at))
		if _, err := dst.Write(c.b); err != nil {
			break
		}
	}
	_ = dst.Close()
	_ = src.Close()
}
