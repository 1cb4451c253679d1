package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Status says how far the tenants' schemas are, by what the catalog knows.
type Status struct {
	// Target and Fingerprint are those of Config.Migrator; zero without one.
	Target      int64  `json:"target"`
	Fingerprint string `json:"fingerprint,omitempty"`
	// Versions are the numbers of tenants by server, state and version.
	Versions []VersionCount `json:"versions"`
	// Behind is the number of those that MigrateTenants would bring forward,
	// Attention of those among them that it leaves out, and Unfinished of those
	// with a Task.
	Behind     int `json:"behind"`
	Attention  int `json:"attention"`
	Unfinished int `json:"unfinished"`
	// Halted is why these migrations are halted; "" if they are not.
	Halted string `json:"halted,omitempty"`
	// Runs are the latest migration runs of the whole fleet, the last one first.
	Runs []Run `json:"runs"`
}

// VersionCount is a part of [Status].
type VersionCount struct {
	Server  string `json:"server"`
	State   State  `json:"state"`
	Version int64  `json:"version"`
	Tenants int    `json:"tenants"`
}

// Run is a migration run.
type Run struct {
	ID          int64      `json:"id"`
	Target      int64      `json:"target"`
	Fingerprint string     `json:"fingerprint"`
	Began       time.Time  `json:"began"`
	Ended       *time.Time `json:"ended,omitempty"`
	// Note is why it was ended by others; "" if it was not.
	Note string `json:"note,omitempty"`
	// Processes is the number of processes that are at it now.
	Processes int `json:"processes"`
}

// Status asks the main database only.
func (c *Catalog) Status(ctx context.Context) (st Status, err error) {
	st.Versions, st.Runs = []VersionCount{}, []Run{}
	if c.cfg.Migrator != nil {
		st.Target, st.Fingerprint = c.cfg.Migrator.Target()
	}
	if err := c.countVersions(ctx, &st); err != nil {
		return st, c.mainError("status", err)
	}
	if err := c.latestRuns(ctx, &st); err != nil {
		return st, c.mainError("status", err)
	}
	err = c.store.db.QueryRowContext(ctx, c.store.d.rebind("SELECT reason FROM "+haltsTable+" WHERE fingerprint = ?"), st.Fingerprint).Scan(&st.Halted)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return st, c.mainError("status", err)
	}
	return st, nil
}

func (c *Catalog) countVersions(ctx context.Context, st *Status) error {
	s := c.store
	rows, err := s.db.QueryContext(ctx, s.d.rebind("SELECT server, state, version, count(*),"+
		" sum(CASE WHEN "+inFleet+" AND "+behind+" THEN 1 ELSE 0 END),"+
		" sum(CASE WHEN "+inFleet+" AND "+behind+" AND attention = ? THEN 1 ELSE 0 END),"+
		" sum(CASE WHEN task <> '' THEN 1 ELSE 0 END)"+
		" FROM "+tenantsTable+" WHERE state <> 'deleted' GROUP BY server, state, version ORDER BY server, state, version"),
		st.Target, st.Target, st.Fingerprint, st.Target, st.Target, st.Fingerprint, st.Fingerprint)
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	for rows.Next() {
		var v VersionCount
		var behind, attention, unfinished int
		if err := rows.Scan(&v.Server, &v.State, &v.Version, &v.Tenants, &behind, &attention, &unfinished); err != nil {
			return err
		}
		st.Versions = append(st.Versions, v)
		st.Unfinished += unfinished
		if c.cfg.Migrator != nil {
			st.Behind += behind
			st.Attention += attention
		}
	}
	return rows.Err()
}

func (c *Catalog) latestRuns(ctx context.Context, st *Status) error {
	const most = 10
	s := c.store
	rows, err := s.db.QueryContext(ctx, s.d.rebind("SELECT id, target, fingerprint, began_at, ended_at, note,"+
		" (SELECT count(*) FROM "+membersTable+" WHERE run = id AND until >= "+s.d.nowMS+")"+
		" FROM "+runsTable+" WHERE selective = 0 ORDER BY id DESC LIMIT ?"), most)
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	for rows.Next() {
		var r Run
		var ended sql.NullTime
		if err := rows.Scan(&r.ID, &r.Target, &r.Fingerprint, &r.Began, &ended, &r.Note, &r.Processes); err != nil {
			return err
		}
		if ended.Valid {
			r.Ended = &ended.Time
		}
		st.Runs = append(st.Runs, r)
	}
	return rows.Err()
}

// BuildTemplates makes the template that new tenants are copied from on each
// server, if it is not there: otherwise the first Create after a new migration
// does. It goes on past a server that fails.
func (c *Catalog) BuildTemplates(ctx context.Context) error {
	catalogID, err := c.catalogID(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range sortedKeys(c.cfg.Servers) {
		template := c.template(catalogID, name)
		if template == "" {
			continue
		}
		if err := c.buildTemplate(ctx, c.cfg.Servers[name], catalogID, template); err != nil {
			errs = append(errs, fmt.Errorf("server %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}
