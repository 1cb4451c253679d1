package tenancyriver_test

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverdatabasesql"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/riverqueue/river/rivertype"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	tenancyriver "github.com/gorm-tenancy/tenancy/contrib/river"
	"github.com/gorm-tenancy/tenancy/internal/notes"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/tenancypg"
	"github.com/gorm-tenancy/tenancy/tenant"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Main(m)) }

type Invoice struct {
	ID   uint
	Text string
}

type InvoiceArgs struct {
	Text string `json:"text"`
}

func (InvoiceArgs) Kind() string { return "invoice" }

type SweepArgs struct{}

func (SweepArgs) Kind() string { return "sweep" }

// queue is an application: tenants, a queue in its main database, and workers.
type queue struct {
	t         *testing.T
	db        *gorm.DB
	plugin    *tenancy.Plugin
	client    *river.Client[*sql.Tx]
	raw       map[string]*sql.DB // of tenants, and of "main"
	suspended sync.Map           // by tenant
	sweeps    chan error
	events    <-chan *river.Event
}

func newQueue(t *testing.T, periodic ...*river.PeriodicJob) *queue {
	t.Helper()
	c := pgtest.Shared(t)
	q := &queue{t: t, raw: map[string]*sql.DB{}, sweeps: make(chan error, 10)}
	tenants := tenancy.Static{}
	var dsn string
	for _, id := range []string{"acme", "bravo", "main"} {
		dsn = c.DSN(c.CreateDatabase(t))
		pool, err := sql.Open("pgx", dsn)
		require.NoError(t, err)
		t.Cleanup(func() { _ = pool.Close() })
		_, err = pool.ExecContext(t.Context(), "CREATE TABLE invoices (id bigserial PRIMARY KEY, text text)")
		require.NoError(t, err)
		q.raw[id] = pool
		if id != "main" {
			tenants[id] = tenancy.Database{DSN: dsn}
		}
	}
	q.db, q.plugin = notes.Open(t, postgres.Open(dsn), tenancy.Config{
		Engine: tenancypg.Engine{},
		Resolver: tenancy.ResolverFunc(func(ctx context.Context, id string) (tenancy.Database, error) {
			if _, ok := q.suspended.Load(id); ok {
				return tenancy.Database{}, tenancy.ErrTenantSuspended
			}
			return tenants.Resolve(ctx, id)
		}),
	})
	main, err := q.db.DB()
	require.NoError(t, err)

	driver := riverdatabasesql.New(main)
	migrator, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	_, err = migrator.Migrate(t.Context(), rivermigrate.DirectionUp, nil)
	require.NoError(t, err)

	m, err := tenancyriver.New(tenancyriver.Config{Main: []string{"sweep"}, Check: q.plugin.Check, Snooze: 10 * time.Millisecond})
	require.NoError(t, err)
	workers := river.NewWorkers()
	river.AddWorker(workers, river.WorkFunc(q.invoice))
	river.AddWorker(workers, river.WorkFunc(func(ctx context.Context, _ *river.Job[SweepArgs]) error {
		q.sweeps <- q.db.WithContext(ctx).Create(&Invoice{Text: "of main"}).Error
		return nil
	}))
	q.client, err = river.NewClient(driver, &river.Config{
		Middleware:        []rivertype.Middleware{m},
		Workers:           workers,
		Queues:            map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 8}},
		PeriodicJobs:      periodic,
		FetchCooldown:     time.Millisecond,
		FetchPollInterval: 5 * time.Millisecond,
		Logger:            slog.New(slog.DiscardHandler),
		TestOnly:          true,
	})
	require.NoError(t, err)
	var cancel func()
	q.events, cancel = q.client.Subscribe(river.EventKindJobCompleted, river.EventKindJobFailed, river.EventKindJobSnoozed)
	t.Cleanup(cancel)
	return q
}

// invoice is the worker. It knows of no tenant.
func (q *queue) invoice(ctx context.Context, job *river.Job[InvoiceArgs]) error {
	if job.Args.Text == "first of two" {
		if _, err := river.ClientFromContext[*sql.Tx](ctx).Insert(ctx, InvoiceArgs{"second of two"}, nil); err != nil {
			return err
		}
	}
	return q.db.WithContext(ctx).Create(&Invoice{Text: job.Args.Text}).Error
}

func (q *queue) start() {
	q.t.Helper()
	require.NoError(q.t, q.client.Start(context.Background()))
	q.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		assert.NoError(q.t, q.client.Stop(ctx))
	})
}

// next waits for what becomes of the next job.
func (q *queue) next() *river.Event {
	q.t.Helper()
	select {
	case e := <-q.events:
		return e
	case <-time.After(30 * time.Second):
		q.t.Fatal("nothing happened to any job")
		return nil
	}
}

// invoices are the rows of a database, read raw.
func (q *queue) invoices(name string) (texts []string) {
	q.t.Helper()
	rows, err := q.raw[name].QueryContext(q.t.Context(), "SELECT text FROM invoices ORDER BY id")
	require.NoError(q.t, err)
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var text string
		require.NoError(q.t, rows.Scan(&text))
		texts = append(texts, text)
	}
	require.NoError(q.t, rows.Err())
	return texts
}

func (q *queue) in(id string) context.Context { return tenant.Pin(q.t.Context(), id) }

func TestWithoutTenant(t *testing.T) {
	q := newQueue(t)
	_, err := q.client.Insert(t.Context(), InvoiceArgs{"lost"}, nil)
	require.ErrorIs(t, err, tenancy.ErrNoTenant)
	_, err = q.client.InsertManyFast(t.Context(), []river.InsertManyParams{{Args: InvoiceArgs{"lost"}}})
	require.ErrorIs(t, err, tenancy.ErrNoTenant)
	// A client without the middleware writes what it likes.
	bare, err := river.NewClient(riverdatabasesql.New(q.raw["main"]), &river.Config{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	_, err = bare.Insert(t.Context(), InvoiceArgs{"lost"}, nil)
	require.NoError(t, err)
	_, err = bare.Insert(t.Context(), InvoiceArgs{"lost"}, &river.InsertOpts{Metadata: []byte(`{"tenancy-tenant":"_main"}`)})
	require.NoError(t, err)
	_, err = bare.Insert(t.Context(), InvoiceArgs{"lost"}, &river.InsertOpts{Metadata: []byte(`{"tenancy-tenant":"charlie"}`)})
	require.NoError(t, err)

	q.start()
	errs := map[string]bool{}
	for range 3 {
		e := q.next()
		require.Equal(t, river.EventKindJobFailed, e.Kind)
		require.Len(t, e.Job.Errors, 1)
		errs[e.Job.Errors[0].Error] = true
	}
	require.Len(t, errs, 3, "%v", errs)
	for name := range q.raw {
		assert.Empty(t, q.invoices(name), name)
	}
}

func TestTenantsSideBySide(t *testing.T) {
	q := newQueue(t)
	q.start()
	var jobs []river.InsertManyParams
	for range 20 {
		jobs = append(jobs, river.InsertManyParams{Args: InvoiceArgs{"of acme"}})
	}
	_, err := q.client.InsertMany(q.in("acme"), jobs[:10])
	require.NoError(t, err)
	_, err = q.client.InsertManyFast(q.in("acme"), jobs[10:])
	require.NoError(t, err)
	for range 20 {
		_, err := q.client.Insert(q.in("bravo"), InvoiceArgs{"of bravo"}, nil)
		require.NoError(t, err)
	}
	_, err = q.client.Insert(q.in("bravo"), InvoiceArgs{"first of two"}, nil)
	require.NoError(t, err)
	for range 42 {
		e := q.next()
		require.Equal(t, river.EventKindJobCompleted, e.Kind, "%+v", e.Job.Errors)
	}
	count := map[string]map[string]int{}
	for name := range q.raw {
		count[name] = map[string]int{}
		for _, text := range q.invoices(name) {
			count[name][text]++
		}
	}
	assert.Equal(t, map[string]map[string]int{
		"acme":  {"of acme": 20},
		"bravo": {"of bravo": 20, "first of two": 1, "second of two": 1},
		"main":  {},
	}, count)
}

// TestInMainsTransaction enqueues with the rows of the main database that the
// job is about.
func TestInMainsTransaction(t *testing.T) {
	q := newQueue(t)
	ctx := q.in("acme")
	enqueue := func(fail error) error {
		return q.db.WithContext(tenant.Main(ctx)).Transaction(func(tx *gorm.DB) error {
			main, err := tenancy.SQLTx(tx)
			if err != nil {
				return err
			}
			if _, err := q.client.InsertTx(ctx, main, InvoiceArgs{"in a transaction"}, nil); err != nil {
				return err
			}
			return fail
		})
	}
	boom := errors.New("boom")
	require.ErrorIs(t, enqueue(boom), boom)
	require.NoError(t, enqueue(nil))
	q.start()
	require.Equal(t, river.EventKindJobCompleted, q.next().Kind)
	assert.Equal(t, []string{"in a transaction"}, q.invoices("acme"))
	assert.Empty(t, q.invoices("main"))
}

func TestUniqueForTheTenant(t *testing.T) {
	q := newQueue(t)
	unique := &river.InsertOpts{UniqueOpts: river.UniqueOpts{ByArgs: true}}
	for _, tc := range []struct {
		id      string
		skipped bool
	}{{"acme", false}, {"bravo", false}, {"acme", true}, {"bravo", true}} {
		got, err := q.client.Insert(q.in(tc.id), InvoiceArgs{"monthly"}, unique)
		require.NoError(t, err)
		assert.Equal(t, tc.skipped, got.UniqueSkippedAsDuplicate, tc.id)
	}
	q.start()
	for range 2 {
		require.Equal(t, river.EventKindJobCompleted, q.next().Kind)
	}
	assert.Equal(t, []string{"monthly"}, q.invoices("acme"))
	assert.Equal(t, []string{"monthly"}, q.invoices("bravo"))
}

func TestSuspendedWaits(t *testing.T) {
	q := newQueue(t)
	q.suspended.Store("acme", true)
	_, err := q.client.Insert(q.in("acme"), InvoiceArgs{"late"}, nil)
	require.NoError(t, err)
	q.start()
	for range 3 {
		e := q.next()
		require.Equal(t, river.EventKindJobSnoozed, e.Kind, "%+v", e.Job.Errors)
	}
	assert.Empty(t, q.invoices("acme"))
	q.suspended.Delete("acme")
	q.plugin.Evict("acme")
	e := q.next()
	for e.Kind == river.EventKindJobSnoozed {
		e = q.next()
	}
	require.Equal(t, river.EventKindJobCompleted, e.Kind, "%+v", e.Job.Errors)
	assert.Equal(t, 1, e.Job.Attempt, "snoozing is no attempt")
	assert.Equal(t, []string{"late"}, q.invoices("acme"))
}

func TestPeriodicJobOfMain(t *testing.T) {
	q := newQueue(t, river.NewPeriodicJob(river.PeriodicInterval(time.Hour),
		func() (river.JobArgs, *river.InsertOpts) { return SweepArgs{}, nil },
		&river.PeriodicJobOpts{RunOnStart: true}))
	q.start()
	select {
	case err := <-q.sweeps:
		require.NoError(t, err)
	case <-time.After(30 * time.Second):
		t.Fatal("no sweep")
	}
	assert.Equal(t, []string{"of main"}, q.invoices("main"))
}
