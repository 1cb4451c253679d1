package catalog

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gorm-tenancy/tenancy/migrate"
)

// store is the SQL of the catalog. It uses the main database's *sql.DB and not
// GORM, so that no plugin, hook, replica or statement cache of the application
// comes between the catalog and its rows.
type store struct {
	db *sql.DB
	d  dialect
}

var (
	errNoRow = errors.New("no such row")
	errLost  = errors.New("another process has taken the work over")
)

func (s *store) rowColumns() string {
	return "uid, COALESCE(id, ''), state, server, dbname, generation, revision, version, fingerprint, max_conns, " +
		"labels, adopted, task, plan, step, last_error, reason, backup, lease_owner, " +
		"lease_owner <> '' AND lease_until >= " + s.d.nowMS + ", run, attempts, attention, outcome, created_at, updated_at, deleted_at"
}

func scanTenant(row interface{ Scan(...any) error }) (t Tenant, err error) {
	var labels, plan, outcome []byte
	var deleted sql.NullTime
	err = row.Scan(&t.UID, &t.ID, &t.State, &t.Server, &t.Database, &t.Generation, &t.revision, &t.Version,
		&t.Fingerprint, &t.MaxConns, &labels, &t.Adopted, &t.Task, &plan, &t.Step, &t.LastError, &t.Reason,
		&t.Backup, &t.leaseOwner, &t.leased, &t.run, &t.attempts, &t.Attention, &outcome, &t.CreatedAt, &t.UpdatedAt, &deleted)
	if errors.Is(err, sql.ErrNoRows) {
		return t, errNoRow
	}
	if err != nil {
		return t, err
	}
	if deleted.Valid {
		t.DeletedAt = &deleted.Time
	}
	if len(outcome) > 0 {
		t.Migration = new(migrate.Result)
		if json.Unmarshal(outcome, t.Migration) != nil {
			t.Migration = nil // only a report
		}
	}
	// One row that somebody has edited must not stop the work on all others.
	var values map[string]any
	if json.Unmarshal(labels, &values) == nil && len(values) > 0 {
		t.Labels = make(map[string]string, len(values))
		for k, v := range values {
			t.Labels[k] = fmt.Sprint(v)
		}
	}
	if err := json.Unmarshal(plan, &t.plan); err != nil {
		t.bad = fmt.Errorf("the column plan of row %s: %w", t.UID, err)
	}
	return t, nil
}

func (s *store) one(ctx context.Context, query string, args ...any) (Tenant, error) {
	return scanTenant(s.db.QueryRowContext(ctx, s.d.rebind(query), args...))
}

func (s *store) exec(ctx context.Context, query string, args ...any) (int64, error) {
	r, err := s.db.ExecContext(ctx, s.d.rebind(query), args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// byID returns the living row of id.
func (s *store) byID(ctx context.Context, id string) (Tenant, error) {
	return s.one(ctx, "SELECT "+s.rowColumns()+" FROM "+tenantsTable+" WHERE id = ? AND state <> 'deleted'", id)
}

func (s *store) byUID(ctx context.Context, uid string) (Tenant, error) {
	return s.one(ctx, "SELECT "+s.rowColumns()+" FROM "+tenantsTable+" WHERE uid = ?", uid)
}

// many returns rows page by page, after the uid of the page before, so that
// nothing is held in the main database while the caller works.
func (s *store) many(ctx context.Context, after, where string, limit int, args ...any) ([]Tenant, error) {
	query := "SELECT " + s.rowColumns() + " FROM " + tenantsTable + " WHERE uid > ?"
	if where != "" {
		query += " AND (" + where + ")"
	}
	query += " ORDER BY uid LIMIT ?"
	args = append(append([]any{after}, args...), limit)
	rows, err := s.db.QueryContext(ctx, s.d.rebind(query), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	var all []Tenant
	for rows.Next() {
		t, err := scanTenant(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, rows.Err()
}

// each calls fn for all rows of where.
func (s *store) each(ctx context.Context, where string, args []any, fn func(Tenant) error) error {
	const page = 500
	after := ""
	for {
		rows, err := s.many(ctx, after, where, page, args...)
		if err != nil {
			return err
		}
		for _, t := range rows {
			if err := fn(t); err != nil {
				return err
			}
			after = t.UID
		}
		if len(rows) < page {
			return nil
		}
	}
}

// insert writes a new row, leased to owner, and reports whether the id was
// free.
func (s *store) insert(ctx context.Context, t Tenant, owner string, lease time.Duration) (bool, error) {
	var id any
	if t.ID != "" {
		id = t.ID
	}
	n, err := s.exec(ctx, "INSERT INTO "+tenantsTable+
		" (uid, id, state, server, dbname, max_conns, labels, adopted, task, plan, lease_owner, lease_until)"+
		" VALUES (?, ?, 'provisioning', ?, ?, ?, "+s.json()+", ?, ?, ?, ?, "+s.d.nowMS+" + ?)"+
		" ON CONFLICT (id) WHERE state <> 'deleted' DO NOTHING",
		t.UID, id, t.Server, t.Database, t.MaxConns, labelText(t.Labels), t.Adopted, string(t.Task),
		t.plan.String(), owner, lease.Milliseconds())
	return n == 1, err
}

func (s *store) json() string {
	if s.d.name == "postgres" {
		return "?::text::jsonb"
	}
	return "?"
}

func labelText(labels map[string]string) string {
	if len(labels) == 0 {
		return "{}"
	}
	b, err := json.Marshal(labels)
	if err != nil {
		panic(err) // strings only
	}
	return string(b)
}

// set is a change of some columns.
type set struct {
	columns []string
	args    []any
}

func (u *set) add(column string, arg any) *set {
	u.columns = append(u.columns, column+" = ?")
	u.args = append(u.args, arg)
	return u
}

func (u *set) raw(assignment string, args ...any) *set {
	u.columns = append(u.columns, assignment)
	u.args = append(u.args, args...)
	return u
}

// change is the compare-and-set of one row: it changes the row of uid if where
// still holds, and returns it as it is then; errLost otherwise. Only begin and
// finish and what has no state in it call it.
func (s *store) change(ctx context.Context, u *set, uid, where string, args ...any) (Tenant, error) {
	return s.changeOn(ctx, s.db, u, uid, where, args...)
}

// querier is a *sql.DB or a *sql.Tx.
type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func (s *store) changeOn(ctx context.Context, q querier, u *set, uid, where string, args ...any) (Tenant, error) {
	u.raw("updated_at = " + s.d.now)
	query := "UPDATE " + tenantsTable + " SET " + strings.Join(u.columns, ", ") + " WHERE uid = ? AND " + where +
		" RETURNING " + s.rowColumns()
	t, err := scanTenant(q.QueryRowContext(ctx, s.d.rebind(query), append(append(u.args, uid), args...)...))
	if errors.Is(err, errNoRow) {
		return t, errLost
	}
	return t, err
}

// begin takes the lease of t, as it was read, for a task; u is what else
// changes.
func (s *store) begin(ctx context.Context, t Tenant, to State, task Task, p plan, u *set, owner string, lease time.Duration) (Tenant, error) {
	if !t.State.can(to) {
		return t, fmt.Errorf("a tenant can't go from %s to %s", t.State, to)
	}
	u.add("state", string(to)).add("task", string(task)).add("plan", p.String()).
		raw("step = '', last_error = ''").add("lease_owner", owner).
		raw("lease_until = "+s.d.nowMS+" + ?", lease.Milliseconds()).raw("revision = revision + 1")
	return s.change(ctx, u, t.UID, "state = ? AND revision = ? AND (lease_owner = '' OR lease_until < "+s.d.nowMS+")",
		string(t.State), t.revision)
}

// finish ends the task that owner has leased, in the state to. If left is
// given, its row is written too: both or none.
func (s *store) finish(ctx context.Context, t Tenant, to State, owner string, u *set, left *Tenant) (Tenant, error) {
	if !t.State.can(to) {
		return t, fmt.Errorf("a tenant can't go from %s to %s", t.State, to)
	}
	u.add("state", string(to)).raw("task = '', plan = '{}', step = '', last_error = '', lease_owner = '', lease_until = 0").
		raw("revision = revision + 1")
	if to == Deleted {
		u.raw("deleted_at = " + s.d.now)
	}
	const where = "lease_owner = ? AND state = ?"
	if left == nil {
		return s.change(ctx, u, t.UID, where, owner, string(t.State))
	}
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return t, err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	t, err = s.changeOn(ctx, tx, u, t.UID, where, owner, string(t.State))
	if err != nil {
		return t, err
	}
	if _, err := tx.ExecContext(ctx, s.d.rebind("INSERT INTO "+tenantsTable+
		" (uid, state, server, dbname, adopted, task, plan) VALUES (?, 'deleting', ?, ?, ?, 'remove', ?)"),
		left.UID, left.Server, left.Database, left.Adopted, left.plan.String()); err != nil {
		return t, err
	}
	return t, tx.Commit()
}

// note changes something in the middle of the task that owner has leased.
func (s *store) note(ctx context.Context, t Tenant, owner string, u *set) (Tenant, error) {
	return s.change(ctx, u, t.UID, "lease_owner = ? AND state = ?", owner, string(t.State))
}

// renew extends owner's lease, even one that has run out, as long as nobody
// has taken the work over.
func (s *store) renew(ctx context.Context, uid, owner string, lease time.Duration) error {
	n, err := s.exec(ctx, "UPDATE "+tenantsTable+" SET lease_until = "+s.d.nowMS+" + ? WHERE uid = ? AND lease_owner = ?",
		lease.Milliseconds(), uid, owner)
	if err == nil && n == 0 {
		err = errLost
	}
	return err
}

// fail gives owner's lease back, with what went wrong. If the work did not end
// in order the owner's name stays: then the successor ends what this one may
// have left running on the server.
func (s *store) fail(ctx context.Context, uid, owner, step, message string, unclean bool) error {
	stays := ""
	if unclean {
		stays = owner
	}
	_, err := s.exec(ctx, "UPDATE "+tenantsTable+" SET step = ?, last_error = ?, lease_owner = ?, lease_until = 0,"+
		" updated_at = "+s.d.now+" WHERE uid = ? AND lease_owner = ?", step, message, stays, uid, owner)
	return err
}

// catalogID returns the id that Migrate gave the catalog.
func (s *store) catalogID(ctx context.Context) (id string, err error) {
	var version int
	err = s.db.QueryRowContext(ctx, "SELECT id, version FROM "+catalogTable).Scan(&id, &version)
	switch {
	case err != nil:
		return "", err
	case version > len(s.d.migrations):
		return "", errNewer
	case version < len(s.d.migrations) || len(id) < 8:
		return "", errNotMigrated
	}
	return id, nil
}

var errNotMigrated = errors.New("the catalog's tables are not there or out of date")
