package catalog

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gorm-tenancy/tenancy/internal/sqlerr"
)

// claim gives id a ready database of the server, by one conditional UPDATE.
// errNoRow says that there is none, errLost that id has a row already.
func (c *Catalog) claim(ctx context.Context, id, server string, opts CreateOptions) (Tenant, error) {
	fingerprint := ""
	if c.cfg.Migrator != nil {
		_, fingerprint = c.cfg.Migrator.Target()
	}
	u := new(set).add("id", id).raw("labels = "+c.store.json(), labelText(opts.Labels)).
		add("max_conns", opts.MaxConns).raw("revision = revision + 1, created_at = " + c.store.d.now)
	owner := ""
	if c.cfg.Seed == nil {
		u.add("state", string(Active))
	} else {
		owner = newOwner()
		u.add("state", string(Provisioning)).add("task", string(TaskClaim)).add("lease_owner", owner).
			raw("lease_until = "+c.store.d.nowMS+" + ?", c.cfg.Lease.Milliseconds())
	}
	t, err := c.store.claim(ctx, u, server, fingerprint)
	switch {
	case errors.Is(err, errNoRow):
		return t, err
	case sqlerr.Unique(err):
		return t, errLost
	case err != nil:
		return t, c.mainError("create", err)
	}
	select {
	case c.claimed <- struct{}{}:
	default:
	}
	c.lookups.news(id)
	if owner == "" {
		return t, nil
	}
	return c.run(ctx, &work{c: c, t: t, owner: owner})
}

// FillReady makes ready databases until there are Config.Ready on each server,
// however many processes do so, and brings those forward that were made for
// older migrations. It goes on past a server that fails. [Catalog.Run] calls
// it.
func (c *Catalog) FillReady(ctx context.Context) error {
	var errs []error
	for _, server := range sortedKeys(c.cfg.Servers) {
		if err := c.fillReady(ctx, server); err != nil {
			errs = append(errs, fmt.Errorf("server %s: %w", server, err))
		}
	}
	return errors.Join(errs...)
}

func (c *Catalog) fillReady(ctx context.Context, server string) error {
	var target int64
	fingerprint := ""
	if c.cfg.Migrator != nil {
		target, fingerprint = c.cfg.Migrator.Target()
	}
	var have int
	var old []Tenant
	var errs []error
	err := c.store.each(ctx, "server = ? AND id IS NULL AND state IN ('ready', 'provisioning')", []any{server}, func(t Tenant) error {
		switch {
		case t.State == Provisioning && t.leased:
			have++ // somebody is making it
		case t.State == Provisioning, t.Version < target, t.Version == target && t.Fingerprint != fingerprint:
			old = append(old, t)
		case t.Fingerprint == fingerprint:
			have++
		}
		return nil
	})
	if err != nil {
		return c.mainError("fill", err)
	}
	for _, t := range old { // first what was begun
		if have >= c.cfg.Ready && t.State == Ready {
			break
		}
		_, err := c.start(ctx, t, TaskReady, plan{}, nil)
		if errors.Is(err, errLost) {
			continue // claimed, or somebody is at it
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		have++
	}
	for have < c.cfg.Ready {
		t := Tenant{UID: newUID(), Server: server, Database: newDatabaseName("")}
		owner := newOwner()
		room, err := c.store.insertReady(ctx, t, c.cfg.Ready, owner, c.cfg.Lease)
		if err != nil {
			return c.mainError("fill", err)
		}
		if !room {
			break // others are at it
		}
		if t, err = c.store.byUID(ctx, t.UID); err != nil {
			return c.mainError("fill", err)
		}
		if _, err := c.run(ctx, &work{c: c, t: t, owner: owner}); err != nil {
			errs = append(errs, err)
			break
		}
		have++
	}
	return errors.Join(errs...)
}

// DropReady drops the ready databases of a server but for keep of them: before
// the server is given up, or when Config.Ready was lowered.
func (c *Catalog) DropReady(ctx context.Context, server string, keep int) error {
	var rows []Tenant
	err := c.store.each(ctx, "server = ? AND state = 'ready'", []any{server}, func(t Tenant) error {
		rows = append(rows, t)
		return nil
	})
	if err != nil {
		return c.mainError("drop", err)
	}
	var errs []error
	for _, t := range rows[:max(0, len(rows)-max(0, keep))] {
		if _, err := c.remove(ctx, t, plan{}); err != nil && !errors.Is(err, errLost) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// claim makes the change u to the ready database of server that waits longest.
func (s *store) claim(ctx context.Context, u *set, server, fingerprint string) (Tenant, error) {
	u.raw("updated_at = " + s.d.now)
	query := "UPDATE " + tenantsTable + " SET " + strings.Join(u.columns, ", ") + " WHERE state = 'ready' AND uid = (" +
		"SELECT uid FROM " + tenantsTable + " WHERE state = 'ready' AND server = ? AND fingerprint = ?" +
		" AND (lease_owner = '' OR lease_until < " + s.d.nowMS + ")" +
		" ORDER BY created_at, uid LIMIT 1" + s.d.skipLocked + ") RETURNING " + s.rowColumns()
	return s.one(ctx, query, append(u.args, server, fingerprint)...)
}

// insertReady writes the row of a new ready database, leased to owner, unless
// there are enough. The count and the row are one change: several processes
// make no more than there should be.
func (s *store) insertReady(ctx context.Context, t Tenant, enough int, owner string, lease time.Duration) (bool, error) {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return false, err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	// A lock that both databases know.
	if _, err := tx.ExecContext(ctx, "UPDATE "+catalogTable+" SET one = one"); err != nil {
		return false, err
	}
	// What failed counts for nothing, but there must not be more and more of
	// it.
	var have, all int
	if err := tx.QueryRowContext(ctx, s.d.rebind("SELECT count(CASE WHEN state = 'ready' OR lease_until >= "+s.d.nowMS+
		" THEN 1 END), count(*) FROM "+tenantsTable+" WHERE server = ? AND id IS NULL AND state IN ('ready', 'provisioning')"),
		t.Server).Scan(&have, &all); err != nil {
		return false, err
	}
	if have >= enough || all >= 2*enough {
		return false, nil
	}
	if _, err := tx.ExecContext(ctx, s.d.rebind("INSERT INTO "+tenantsTable+
		" (uid, state, server, dbname, task, lease_owner, lease_until) VALUES (?, 'provisioning', ?, ?, 'ready', ?, "+s.d.nowMS+" + ?)"),
		t.UID, t.Server, t.Database, owner, lease.Milliseconds()); err != nil {
		return false, err
	}
	return true, tx.Commit()
}
