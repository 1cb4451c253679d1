package migrate

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/gorm-tenancy/tenancy"
)

// List is a fleet without a catalog: ids from anywhere, and the Resolver that
// knows their databases. Nobody keeps books: each run looks into every
// database, and processes that run at the same time only wait for each other's
// locks. What failed is known to the Report alone.
type List struct {
	// IDs are the tenants. Each is resolved once, as the run begins.
	IDs iter.Seq2[string, error]
	// Resolver says where their databases are: with the rights to migrate, and
	// not through a pooler.
	Resolver tenancy.Resolver
	// Engine opens them: tenancypg.Engine{}, tenancysqlite.Engine{}.
	Engine interface {
		tenancy.Engine
		Locker
	}
}

// Begin implements [Source].
func (l List) Begin(ctx context.Context, want Want) (Ledger, *Report, error) {
	if l.IDs == nil || l.Resolver == nil || l.Engine == nil {
		return nil, nil, fmt.Errorf("migrate: List needs IDs, a Resolver and an Engine")
	}
	b := &listBook{engine: l.Engine, canaries: want.Canaries, report: Report{Run: "list", Target: want.Target, Fingerprint: want.Fingerprint, Began: time.Now()}}
	seen := map[string]bool{}
	for id, err := range l.IDs {
		if err != nil {
			return nil, nil, fmt.Errorf("migrate: the list of tenants: %w", err)
		}
		if err := ctx.Err(); err != nil {
			return nil, nil, context.Cause(ctx)
		}
		if seen[id] || len(want.Only) > 0 && !slices.Contains(want.Only, id) {
			continue
		}
		seen[id] = true
		e := &entry{book: b, canary: slices.Contains(want.Canaries, id)}
		e.result = Result{Tenant: id, Status: StatusPending, From: -1, To: -1}
		b.entries = append(b.entries, e)
		if e.database, err = l.Resolver.Resolve(ctx, id); err != nil {
			e.result.Status, e.result.Error = StatusFailed, err.Error()
			continue
		}
		e.result.Server = serverOf(l.Engine, e.database)
	}
	if want.DryRun || len(b.entries) == 0 {
		report, err := b.End(ctx)
		for _, e := range b.entries {
			if e.result.Status == StatusPending {
				report.Tenants = append(report.Tenants, e.public())
			}
		}
		return nil, report, err
	}
	return b, nil, nil
}

// serverOf is what the plugin calls a database's server.
func serverOf(engine tenancy.Engine, d tenancy.Database) string {
	if d.Server != "" {
		return d.Server
	}
	if d.DSN != "" {
		return engine.Server(d.DSN)
	}
	if c, ok := d.Connector.(tenancy.ServerConnector); ok {
		return c.Server()
	}
	return ""
}

// listBook is the Ledger of a List.
type listBook struct {
	engine   Locker
	canaries []string

	mu      sync.Mutex // guards the rest
	entries []*entry   // the slice itself is never changed
	report  Report
}

// entry is a tenant of a list, and its own Job.
type entry struct {
	book     *listBook
	database tenancy.Database
	canary   bool

	// guarded by book.mu
	result Result
	busy   bool
	after  time.Time // of the next attempt
	key    string    // of its failure
}

func (b *listBook) pick(fn func(*entry) bool) (all []*entry) {
	for _, e := range b.entries {
		if fn(e) {
			all = append(all, e)
		}
	}
	return all
}

// Canaries implements [Ledger].
func (b *listBook) Canaries() []string { return b.canaries }

// Servers implements [Ledger].
func (b *listBook) Servers(_ context.Context, canaries bool) (names []string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.entries {
		if e.result.Status == StatusPending && (e.canary || !canaries) && !slices.Contains(names, e.result.Server) {
			names = append(names, e.result.Server)
		}
	}
	return names, nil
}

// Claim implements [Ledger].
func (b *listBook) Claim(_ context.Context, server string, canaries bool) (c Claim, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.report.Status == StatusHalted {
		return Claim{Halted: b.report.Reason}, nil
	}
	now := time.Now()
	for _, e := range b.entries {
		if e.result.Status != StatusPending || e.result.Server != server || canaries && !e.canary {
			continue
		}
		wait := max(e.after.Sub(now), 0)
		if e.busy {
			wait = ask
		}
		if wait == 0 {
			e.busy = true
			e.result.Attempts++
			return Claim{Job: e}, nil
		}
		if c.Next == 0 || wait < c.Next {
			c.Next = wait
		}
	}
	return c, nil
}

// Skip implements [Ledger].
func (b *listBook) Skip(_ context.Context, server, reason string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.pick(func(e *entry) bool { return e.result.Server == server && e.result.Status == StatusPending && !e.busy }) {
		e.result.Status, e.result.Error = StatusSkipped, reason
	}
	return nil
}

// Halt implements [Ledger].
func (b *listBook) Halt(_ context.Context, reason string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.report.Status != StatusHalted {
		b.report.Status, b.report.Reason = StatusHalted, reason
	}
	return nil
}

// Counts implements [Ledger].
func (b *listBook) Counts(context.Context) (c Counts, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.entries {
		switch e.result.Status {
		case StatusDone:
			c.Done++
		case StatusFailed:
			c.Failed++
		case StatusSkipped:
			c.Skipped++
		default:
			c.Left++
		}
	}
	return c, nil
}

// Results implements [Ledger].
func (b *listBook) Results(_ context.Context, ids []string) (all []Result, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.pick(func(e *entry) bool { return slices.Contains(ids, e.result.Tenant) }) {
		all = append(all, e.public())
	}
	return all, nil
}

// End implements [Ledger].
func (b *listBook) End(context.Context) (*Report, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	report := b.report
	for _, e := range b.entries {
		switch {
		case e.result.Status == StatusPending:
			report.Left++
		case e.result.Status == StatusDone && e.result.To > report.Target:
			report.Ahead++
		case e.result.Status == StatusDone && len(e.result.Applied) == 0:
			report.UpToDate++
		default:
			report.Tenants = append(report.Tenants, e.public())
		}
	}
	return &report, nil
}

// public is the result without what stands for a version that is not known.
func (e *entry) public() Result {
	r := e.result
	r.From, r.To = max(r.From, 0), max(r.To, 0)
	return r
}

// Tenant implements [Job].
func (e *entry) Tenant() Result {
	e.book.mu.Lock()
	defer e.book.mu.Unlock()
	return e.result
}

// Hold implements [Job]: nobody takes a tenant away.
func (e *entry) Hold(ctx context.Context) (context.Context, func()) { return ctx, func() {} }

// Held implements [Job].
func (e *entry) Held(context.Context) error { return nil }

// lockWait bounds the wait for another run on the same database. It is long
// enough to be done with most.
const lockWait = 10 * time.Second

// Open implements [Job].
func (e *entry) Open(ctx context.Context, l Lock) (*Exclusive, error) {
	l.Identity = e.database.Identity
	l.Wait = lockWait
	return e.book.engine.LockDatabase(ctx, e.database, l)
}

// Classify implements [Job].
func (e *entry) Classify(err error) tenancy.Fault { return e.book.engine.Classify(err) }

// End implements [Job].
func (e *entry) End(_ context.Context, o Outcome) (same int, err error) {
	b := e.book
	b.mu.Lock()
	defer b.mu.Unlock()
	e.busy = false
	e.result = o.Result
	if o.Again {
		e.result.Status = StatusPending
		e.after = time.Now().Add(o.After)
		if o.Uncounted {
			e.result.Attempts--
		}
		return 0, nil
	}
	if o.Status == StatusFailed {
		e.key = o.Key
		same = len(b.pick(func(e *entry) bool { return e.result.Status == StatusFailed && e.key == o.Key }))
	}
	return same, nil
}
