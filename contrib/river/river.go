// Package tenancyriver takes the tenant through River's jobs: what is enqueued
// for a tenant is worked for that tenant. The jobs are in the main database, in
// one queue for all tenants.
//
//	tenants, err := tenancyriver.New(tenancyriver.Config{Check: plugin.Check})
//	client, err := river.NewClient(riverdatabasesql.New(mainDB), &river.Config{
//		Middleware: []rivertype.Middleware{tenants},
//		Workers:    workers,
//		Queues:     queues,
//	})
//
//	_, err = client.Insert(r.Context(), InvoiceArgs{Order: 7}, nil) // for the request's tenant
//
//	func (w *invoices) Work(ctx context.Context, job *river.Job[InvoiceArgs]) error {
//		return w.db.WithContext(ctx).Create(...).Error // in the job's tenant
//	}
//
// A job without a tenant is an error, when it is inserted and when it is worked,
// unless its kind is one of [Config.Main].
//
// Who can write River's table chooses the tenant of its jobs: it belongs in the
// main database, where tenants don't write.
package tenancyriver

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// Config is what [New] needs. The zero value is good.
type Config struct {
	// Main are the kinds of jobs that are work for the main database, such as
	// a periodic job that looks after all tenants. Whatever the context that
	// they are inserted with, they are worked with one of tenant.Main. Jobs of
	// any other kind need a tenant. Give all clients the same. A kind that is
	// being renamed is in it under both names: queued jobs have the old one.
	Main []string
	// Check says whether the job's tenant is served, before the worker begins:
	// it is the plugin's [tenancy.Plugin.Check]. Defaults to none: the worker's
	// first statement fails then.
	Check func(ctx context.Context, id string) error
	// Snooze is how long a job waits whose tenant is suspended or behind on
	// migrations, by Check or by an error that its worker returns. It does not
	// count as an attempt, so a suspension may last. Jobs of Main are never
	// snoozed: what such a job has done for other tenants would be done again
	// and again. Defaults to 1 minute.
	Snooze time.Duration
}

// Middleware writes the tenant into a job's metadata, under
// [tenant.CarrierKey], and pins the worker's context to it. It is a
// rivertype.JobInsertMiddleware and a rivertype.WorkerMiddleware: put it into
// river.Config.Middleware of each client, as the first.
type Middleware struct {
	river.MiddlewareDefaults
	cfg Config
}

var (
	_ rivertype.JobInsertMiddleware = (*Middleware)(nil)
	_ rivertype.WorkerMiddleware    = (*Middleware)(nil)
)

// New returns a Middleware. A negative Snooze and a kind without a name are
// errors.
func New(cfg Config) (*Middleware, error) {
	switch {
	case cfg.Snooze < 0:
		return nil, fmt.Errorf("tenancyriver: Config.Snooze is negative: %s", cfg.Snooze)
	case slices.Contains(cfg.Main, ""):
		return nil, errors.New("tenancyriver: Config.Main has a kind without a name; a kind is what JobArgs.Kind returns")
	case cfg.Snooze == 0:
		cfg.Snooze = time.Minute
	}
	cfg.Main = slices.Clone(cfg.Main)
	return &Middleware{cfg: cfg}, nil
}

// InsertMany is called by River around each insertion. The tenant is that of
// ctx, which for InsertTx may be another one than the transaction's.
//
// Jobs with river.UniqueOpts are unique for their tenant: without, one tenant's
// job would keep out another's that has the same arguments.
func (m *Middleware) InsertMany(ctx context.Context, jobs []*rivertype.JobInsertParams,
	insert func(context.Context) ([]*rivertype.JobInsertResult, error)) ([]*rivertype.JobInsertResult, error) {
	for _, job := range jobs {
		if err := m.mark(ctx, job); err != nil {
			return nil, fmt.Errorf("tenancyriver: a job of kind %q: %w", job.Kind, err)
		}
	}
	return insert(ctx)
}

func (m *Middleware) mark(ctx context.Context, job *rivertype.JobInsertParams) error {
	main := slices.Contains(m.cfg.Main, job.Kind)
	if main {
		ctx = tenant.Main(ctx)
	}
	carrier := tenant.MapCarrier{}
	if err := tenant.Inject(ctx, carrier); err != nil {
		return err
	}
	id, _ := tenant.ID(ctx)
	if id == "" && !main {
		return fmt.Errorf("%w, by tenant.Main; make the kind one of Config.Main if that is its place", tenant.ErrMain)
	}
	metadata, err := object(job.Metadata)
	if err != nil {
		return err
	}
	maps.DeleteFunc(metadata, func(key string, _ json.RawMessage) bool { return strings.EqualFold(key, tenant.CarrierKey) })
	for key, value := range carrier {
		if metadata[key], err = json.Marshal(value); err != nil {
			return err
		}
	}
	if job.Metadata, err = json.Marshal(metadata); err != nil {
		return err
	}
	if len(job.UniqueKey) > 0 && !main {
		// River's key is a hash too (river internal/dbunique, UniqueKey). No id
		// has a zero byte.
		key := sha256.Sum256(append([]byte(id+"\x00"), job.UniqueKey...))
		job.UniqueKey = key[:]
	}
	return nil
}

// Work is called by River around each worker. A job that names no tenant, no
// valid one, or the main database though its kind is not one of Config.Main, is
// an error before its worker begins, and River tries it again by its own rules:
// whoever mends the job's metadata, or deploys what knows its kind, needs no
// more. The same goes for a tenant that is not found: it may have been renamed.
func (m *Middleware) Work(ctx context.Context, job *rivertype.JobRow, work func(context.Context) error) error {
	ctx, err := m.context(ctx, job)
	if err != nil {
		return fmt.Errorf("tenancyriver: job %d of kind %q: %w", job.ID, job.Kind, err)
	}
	id, ok := tenant.ID(ctx)
	if !ok { // main's, which has no tenant to wait for
		return work(ctx)
	}
	if m.cfg.Check != nil {
		if err := m.cfg.Check(ctx, id); err != nil {
			return m.snoozed(err)
		}
	}
	return m.snoozed(work(ctx))
}

// context returns the one that the job's worker gets.
func (m *Middleware) context(ctx context.Context, job *rivertype.JobRow) (context.Context, error) {
	metadata, err := object(job.Metadata)
	if err != nil {
		return nil, err
	}
	carrier := tenant.MapCarrier{}
	for key, value := range metadata {
		var text string
		if json.Unmarshal(value, &text) == nil { // what is no text is not the tenant's
			carrier[key] = text
		}
	}
	pinned, err := tenant.Extract(ctx, carrier)
	switch main := slices.Contains(m.cfg.Main, job.Kind); {
	case errors.Is(err, tenant.ErrMain) && main:
		return tenant.Main(ctx), nil
	case err == nil && main:
		return nil, fmt.Errorf("%w: it names a tenant, and its kind is one of Config.Main", tenant.ErrMismatch)
	}
	return pinned, err
}

// snoozed makes River wait where it is not the job's fault that it can't run,
// unless the worker has said already what is to be done.
func (m *Middleware) snoozed(err error) error {
	if errors.As(err, new(*river.JobSnoozeError)) || errors.As(err, new(*river.JobCancelError)) {
		return err
	}
	if errors.Is(err, tenancy.ErrTenantSuspended) || errors.Is(err, tenancy.ErrTenantBehind) {
		// JobSnooze panics if the duration is negative, which New refuses.
		return fmt.Errorf("%w: %w", river.JobSnooze(m.cfg.Snooze), err)
	}
	return err
}

// object decodes a job's metadata, which River keeps as a JSON object.
func object(metadata []byte) (map[string]json.RawMessage, error) {
	fields := map[string]json.RawMessage{}
	if len(metadata) == 0 {
		return fields, nil
	}
	if err := json.Unmarshal(metadata, &fields); err != nil {
		return nil, fmt.Errorf("its metadata is no JSON object: %w", err)
	}
	if fields == nil { // null
		fields = map[string]json.RawMessage{}
	}
	return fields, nil
}
