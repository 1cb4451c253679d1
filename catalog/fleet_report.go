package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gorm-tenancy/tenancy/migrate"
)

// report counts and lists the tenants as they are now, each once.
func (b *book) report(ctx context.Context) (*migrate.Report, error) {
	r := &migrate.Report{Target: b.want.Target, Fingerprint: b.want.Fingerprint, Began: b.began}
	s := b.c.store
	if b.run != 0 {
		r.Run = fmt.Sprint(b.run)
		var began time.Time
		err := s.db.QueryRowContext(ctx, s.d.rebind("SELECT began_at FROM "+runsTable+" WHERE id = ?"), b.run).Scan(&began)
		if err == nil {
			r.Began = began
		}
	}
	if !b.want.DryRun {
		var halted sql.NullString
		err := s.db.QueryRowContext(ctx, s.d.rebind("SELECT reason FROM "+haltsTable+" WHERE fingerprint = ?"), b.want.Fingerprint).Scan(&halted)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return nil, b.c.mainError("migrate", err)
		}
		if halted.Valid && !b.evenHalted {
			r.Status, r.Reason = migrate.StatusHalted, halted.String
		}
	}
	only, args := among(b.want.Only)
	found := map[string]bool{}
	err := s.each(ctx, "("+counted+" OR run = ? AND run <> 0)"+only, append([]any{b.run}, args...), func(t Tenant) error {
		found[t.ID] = b.count(r, t) || found[t.ID]
		return nil
	})
	if err != nil {
		return nil, b.c.mainError("migrate", err)
	}
	for _, id := range b.want.Only {
		if !found[id] {
			r.Tenants = append(r.Tenants, migrate.Result{Tenant: id, Status: migrate.StatusSkipped,
				Error: "there is no such tenant that could be migrated"})
		}
	}
	return r, nil
}

// count adds a row to the report.
func (b *book) count(r *migrate.Report, t Tenant) (counted bool) {
	if t.Version > b.want.Target {
		if slices.Contains(countedStates, t.State) {
			r.Ahead++
		}
		return true
	}
	res := b.result(t)
	switch {
	case res.Status == migrate.StatusDone && (t.run != b.run || b.run == 0):
		r.UpToDate++
	case res.Status == migrate.StatusPending && !b.want.DryRun:
		r.Left++
	case res.Status != "":
		r.Tenants = append(r.Tenants, res)
	}
	return res.Status != ""
}

// result says what became of a tenant; "" if it is none that could be migrated.
func (b *book) result(t Tenant) migrate.Result {
	res := migrate.Result{Tenant: t.name(), Server: t.Server, From: t.Version, To: t.Version}
	ours := t.run == b.run && b.run != 0
	if ours {
		if t.Migration != nil {
			res = *t.Migration
			res.Tenant, res.Server = t.name(), t.Server
		}
		res.Attempts = t.attempts
	}
	skip := func(why string) migrate.Result {
		res.Status, res.Error = migrate.StatusSkipped, why
		return res
	}
	b.mu.Lock()
	lost, given := b.skipped[t.Server]
	b.mu.Unlock()
	switch {
	case !slices.Contains(countedStates, t.State) && (!ours || b.isBehind(t)):
		res.Status = "" // removed, or not made yet
	case !b.isBehind(t):
		res.Status = migrate.StatusDone
	case t.Attention == b.want.Fingerprint && ours:
		res.Status = migrate.StatusFailed
	case t.Attention == b.want.Fingerprint:
		why := "it needs attention since an earlier run"
		if t.Migration != nil {
			res.SQLState, res.Version = t.Migration.SQLState, t.Migration.Version
			why += ": " + t.Migration.Error
		}
		return skip(why)
	case t.Task != "" && t.leased:
		return skip(fmt.Sprintf("its %s is going on", t.Task))
	case t.Task != "":
		return skip(fmt.Sprintf("its %s is unfinished; call Resume", t.Task))
	case t.leased:
		res.Status = migrate.StatusPending
	case ours && t.attempts >= b.want.Attempts:
		res.Status = migrate.StatusFailed
		if res.Error == "" {
			res.Error = "the processes that were at it died"
		}
	case given:
		return skip(lost)
	default:
		res.Status = migrate.StatusPending
	}
	return res
}

// Results implements migrate.Ledger: also those that had no turn in this run.
func (b *book) Results(ctx context.Context, ids []string) (all []migrate.Result, err error) {
	where, args := among(ids)
	only, onlyArgs := among(b.want.Only)
	err = b.c.store.each(ctx, counted+where+only, append(args, onlyArgs...), func(t Tenant) error {
		all = append(all, b.result(t))
		return nil
	})
	if err != nil {
		return nil, b.c.mainError("migrate", err)
	}
	return all, nil
}
