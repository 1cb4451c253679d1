package catalog_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/tenant"
)

func init() { childWork["load"] = loadChild }

// loadChild is an application under load: workers write to the tenant as fast
// as they can, each row with the number of the tenant's life that the process
// believes in. It prints what it did when its standard input ends.
func loadChild(spec childSpec, in *bufio.Scanner) error {
	pr, err := spec.open()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var (
		wg      sync.WaitGroup
		mu      sync.Mutex
		written int
		strange []string
		once    sync.Once
	)
	for w := range 4 {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				// No deadline of its own but a long one: nobody hangs.
				sctx, done := context.WithTimeout(tenant.Ctx(context.Background(), spec.ID), 30*time.Second)
				err := pr.db.WithContext(sctx).Create(&Note{Text: fmt.Sprintf("w%d-%d", w, n)}).Error
				done()
				mu.Lock()
				switch {
				case err == nil:
					written++
					once.Do(func() { fmt.Println("writing") })
				case errors.Is(err, context.DeadlineExceeded):
					strange = append(strange, "hung: "+err.Error())
				case errors.Is(err, tenancy.ErrTenantSuspended), errors.Is(err, tenancy.ErrTenantNotFound),
					errors.Is(err, tenancy.ErrUnavailable), errors.Is(err, tenancy.ErrWrongDatabase), cut(err):
				default:
					strange = append(strange, err.Error())
				}
				mu.Unlock()
			}
		})
	}
	for in.Scan() {
	}
	cancel()
	wg.Wait()
	fmt.Printf("written %d\n", written)
	for _, s := range strange[:min(len(strange), 5)] {
		fmt.Println("strange:", s)
	}
	return pr.close()
}

// cut reports whether err is what a statement gets whose connection is ended,
// or whose file goes away.
func cut(err error) bool {
	for _, text := range []string{"57P01", "unexpected EOF", "conn closed", "broken pipe", "connection reset", "bad connection",
		"failed to deallocate", "disk I/O error", "no such table", "readonly database", "unable to open"} {
		if strings.Contains(err.Error(), text) {
			return true
		}
	}
	return false
}

// sessions counts the sessions of the application in a database, around
// everything. On SQLite nobody can be asked.
func (p place) sessions(t *testing.T, row catalog.Tenant) (n int) {
	t.Helper()
	if p.Engine == "sqlite" {
		return 0
	}
	db, err := sql.Open("pgx", p.Main) // a superuser's
	require.NoError(t, err)
	defer db.Close()
	require.NoError(t, db.QueryRow("SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND usename = $2",
		row.Database, user(p.Servers[row.Server].App)).Scan(&n))
	return n
}

// count reads how many notes are really in a database.
func (p place) count(t *testing.T, row catalog.Tenant, fenced bool) (n int) {
	t.Helper()
	s := p.Servers[row.Server]
	var db *sql.DB
	var err error
	if p.Engine == "sqlite" {
		name := row.Database
		if fenced {
			name = ".fenced-" + name
		}
		db, err = sql.Open("sqlite", "file:"+s.Dir+"/"+name+"?mode=ro&_pragma=busy_timeout(5000)")
	} else {
		db, err = sql.Open("pgx", dsnOf(t, p.Main, row.Database))
	}
	require.NoError(t, err)
	defer db.Close()
	require.NoError(t, db.QueryRow("SELECT count(*) FROM notes").Scan(&n))
	return n
}

// Another process uses the tenant as hard as it can while this one suspends it,
// lets it go on, removes it and makes it again.
func TestProcesses(t *testing.T) {
	onEngines(t, func(t *testing.T, p place) {
		pr := p.start(t)
		ctx := t.Context()
		acme := pr.create(t, "acme")
		c := startChild(t, childSpec{Work: "load", place: p, ID: "acme"})
		require.Equal(t, "writing", c.line(t))

		for round := range 3 {
			drain := time.Duration(0) // Config.Drain
			if round == 1 && p.Engine == "postgres" {
				drain = -1 // statements are cut
			}
			// On SQLite the other process's connections can't be ended: it
			// gives them up when it hears.
			suspended := time.Now()
			require.Eventually(t, func() bool {
				err := pr.catalog.Suspend(ctx, "acme", catalog.SuspendOptions{Drain: drain})
				if p.Engine == "sqlite" && errors.Is(err, catalog.ErrNotFenced) {
					return false
				}
				require.NoError(t, err)
				return true
			}, 20*time.Second, 10*time.Millisecond)
			require.Less(t, time.Since(suspended), 15*time.Second)
			require.Zero(t, p.sessions(t, acme), "after Suspend")
			before := p.count(t, acme, true)
			// What would write now has some tries to do so.
			for range 20 {
				require.Zero(t, p.sessions(t, acme))
				require.Error(t, pr.in("acme").Create(&Note{Text: "no"}).Error)
			}
			require.Equal(t, before, p.count(t, acme, true), "no write gets in")
			require.NoError(t, pr.catalog.Unsuspend(ctx, "acme"))
			require.Eventually(t, func() bool { return p.count(t, acme, false) > before }, 20*time.Second, 5*time.Millisecond,
				"the other process heard that it goes on")
		}

		// Removed and made again: nothing of the old one is met.
		for range 3 {
			old, err := pr.catalog.Get(ctx, "acme")
			require.NoError(t, err)
			removed, err := pr.catalog.Remove(ctx, "acme", catalog.RemoveOptions{NoBackup: true})
			require.NoError(t, err)
			require.Equal(t, old.UID, removed.UID)
			require.Zero(t, p.sessions(t, old))
			require.Empty(t, p.there(t))
			again := pr.create(t, "acme")
			require.NotEqual(t, old.UID, again.UID)
			require.NotEqual(t, old.Database, again.Database)
			require.Eventually(t, func() bool { return p.count(t, again, false) > 0 }, 20*time.Second, 5*time.Millisecond,
				"the other process found the new one")
			require.Len(t, p.there(t), 1)
		}
		require.NoError(t, c.in.Close())
		said, err := c.end(t)
		require.NoError(t, err, said)
		require.NotContains(t, said, "strange", said)
		pr.inOrder(t)
	})
}

// The connection by which a process hears is cut while a tenant is suspended:
// it hears all the same.
func TestNewsIsCut(t *testing.T) {
	p := newPlace(t, "postgres")
	pr, other := p.start(t), p.start(t)
	ctx := t.Context()
	heard := make(chan string, 1000)
	watching, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- other.catalog.Watch(watching, func(id string) { heard <- id }) }()
	admin, err := sql.Open("pgx", p.Main)
	require.NoError(t, err)
	defer admin.Close()
	pr.create(t, "acme")
	require.NoError(t, other.in("acme").Find(&[]Note{}).Error)
	for round := range 6 {
		if round%2 == 1 {
			var n int
			require.NoError(t, admin.QueryRow("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"+
				" WHERE datname = current_database() AND query ILIKE 'LISTEN%'").Scan(&n))
			require.NotZero(t, n)
		}
		began := time.Now()
		require.NoError(t, pr.catalog.Suspend(ctx, "acme", catalog.SuspendOptions{Drain: -1}))
		require.Eventually(t, func() bool {
			return errors.Is(other.in("acme").Find(&[]Note{}).Error, tenancy.ErrTenantSuspended)
		}, 5*time.Second, time.Millisecond)
		t.Logf("round %d: heard after %v", round, time.Since(began))
		require.NoError(t, pr.catalog.Unsuspend(ctx, "acme"))
		require.Eventually(t, func() bool { return other.in("acme").Find(&[]Note{}).Error == nil }, 5*time.Second, time.Millisecond)
	}
	require.NotEmpty(t, heard)
	stop()
	require.ErrorIs(t, <-done, context.Canceled)
}

// A process that was silent for longer than its lease has lost its work.
func TestLease(t *testing.T) {
	onEngines(t, func(t *testing.T, p place) {
		p.Lease = time.Second
		reached, goOn := make(chan struct{}), make(chan struct{})
		var once sync.Once
		slow := p.start(t, func(cfg *catalog.Config) {
			catalog.At(cfg, func(task catalog.Task, step string, after bool) {
				if task == catalog.TaskCreate && step == "seed" && !after {
					once.Do(func() {
						close(reached)
						<-goOn
					})
				}
			})
		})
		result := make(chan error, 1)
		go func() {
			_, err := slow.catalog.Create(t.Context(), "acme", catalog.CreateOptions{})
			result <- err
		}()
		<-reached
		// It renews its lease although it is slow: nobody takes the work.
		fast := p.start(t, func(cfg *catalog.Config) { cfg.Wait = 2 * p.Lease })
		_, err := fast.catalog.Create(t.Context(), "acme", catalog.CreateOptions{})
		require.ErrorIs(t, err, catalog.ErrBusy)
		r, err := fast.catalog.Resume(t.Context())
		require.NoError(t, err)
		require.Len(t, r.Busy, 1)
		close(goOn)
		require.NoError(t, <-result)
		_, err = fast.catalog.Create(t.Context(), "acme", catalog.CreateOptions{})
		require.NoError(t, err)
	})
}

// The lease of a process that died runs out by the main database's clock, and
// another one takes the work over.
func TestLeaseRunsOut(t *testing.T) {
	onEngines(t, func(t *testing.T, p place) {
		p.Lease = time.Second
		p.Seeds = true
		pr := p.start(t)
		c := startChild(t, childSpec{Work: "crash", place: p, Task: string(catalog.TaskCreate), Step: "seed"})
		said, err := c.end(t)
		require.Error(t, err, said)
		r, err := pr.catalog.Resume(t.Context())
		require.NoError(t, err)
		require.Len(t, r.Busy, 1, "it may be alive")
		created, err := pr.catalog.Create(t.Context(), crashID, catalog.CreateOptions{}) // waits for it
		require.NoError(t, err)
		require.Equal(t, r.Busy[0].UID, created.UID)
		served("seed of acme")(t, pr)
		pr.inOrder(t)
	})
}
