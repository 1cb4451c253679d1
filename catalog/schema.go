package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
)

const (
	tenantsTable     = "tenancy_tenants"
	catalogTable     = "tenancy_catalog"
	runsTable        = "tenancy_runs"
	haltsTable       = "tenancy_halts"
	membersTable     = "tenancy_run_members"
	checkpointsTable = "tenancy_checkpoints"
	// channel is what the main database announces changes on, by a trigger, so
	// that whoever changes a row is heard.
	channel = "tenancy_tenants"
)

// dialect is what differs between the main databases.
type dialect struct {
	name string
	// nowMS is the database's clock in milliseconds since 1970. No decision is
	// made by the clock of a process: those of two machines may be far apart.
	nowMS string
	now   string // for the columns that people read
	// skipLocked makes a sub-query pass over what another is about to take.
	skipLocked string
	lock       string // one migration at a time; "" if a transaction is enough
	migrations []string
}

var dialects = map[string]dialect{
	"postgres": {
		name:       "postgres",
		nowMS:      "(extract(epoch FROM clock_timestamp()) * 1000)::bigint",
		now:        "clock_timestamp()",
		skipLocked: " FOR UPDATE SKIP LOCKED",
		lock:       "SELECT pg_advisory_xact_lock(7020309170)",
		migrations: []string{postgres1, postgres2},
	},
	"sqlite": {
		name:       "sqlite",
		nowMS:      "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
		now:        "strftime('%Y-%m-%d %H:%M:%f', 'now')",
		migrations: []string{sqlite1, sqlite2},
	},
}

// rebind writes the placeholders as the database wants them. The statements of
// this package hold no other question mark.
func (d dialect) rebind(query string) string {
	if d.name != "postgres" {
		return query
	}
	var b strings.Builder
	n := 0
	for _, r := range query {
		if r == '?' {
			n++
			fmt.Fprintf(&b, "$%d", n)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

const columns = `
	uid text PRIMARY KEY,
	id text,
	state text NOT NULL CHECK (state IN ('provisioning', 'ready', 'active', 'suspended', 'moving', 'deleting', 'deleted')),
	server text NOT NULL,
	dbname text NOT NULL,
	generation bigint NOT NULL DEFAULT 1,
	revision bigint NOT NULL DEFAULT 1,
	version bigint NOT NULL DEFAULT 0,
	fingerprint text NOT NULL DEFAULT '',
	max_conns integer NOT NULL DEFAULT 0 CHECK (max_conns >= 0),
	labels %[1]s NOT NULL DEFAULT '{}',
	adopted boolean NOT NULL DEFAULT false,
	task text NOT NULL DEFAULT '',
	plan text NOT NULL DEFAULT '{}',
	step text NOT NULL DEFAULT '',
	last_error text NOT NULL DEFAULT '',
	reason text NOT NULL DEFAULT '',
	backup text NOT NULL DEFAULT '',
	lease_owner text NOT NULL DEFAULT '',
	lease_until bigint NOT NULL DEFAULT 0,
	created_at %[2]s NOT NULL DEFAULT (%[3]s),
	updated_at %[2]s NOT NULL DEFAULT (%[3]s),
	deleted_at %[2]s,
	CHECK (id IS NOT NULL OR state IN ('provisioning', 'ready', 'deleting', 'deleted'))`

// An id, and a database, belong to one living row. What is deleted is history.
const indexes = `
CREATE UNIQUE INDEX tenancy_tenants_id ON tenancy_tenants (id) WHERE state <> 'deleted';
CREATE UNIQUE INDEX tenancy_tenants_database ON tenancy_tenants (server, dbname) WHERE state <> 'deleted';
CREATE INDEX tenancy_tenants_server ON tenancy_tenants (server, state);
CREATE INDEX tenancy_tenants_task ON tenancy_tenants (task) WHERE task <> '';`

var postgres1 = "CREATE TABLE tenancy_tenants (" + fmt.Sprintf(columns, "jsonb", "timestamptz", "now()") + ");" + indexes +
	notify("id", "state", "server", "dbname", "generation", "max_conns") + `
CREATE TRIGGER tenancy_tenants_notify AFTER INSERT OR UPDATE OR DELETE ON tenancy_tenants
	FOR EACH ROW EXECUTE FUNCTION tenancy_tenants_notify();`

var sqlite1 = "CREATE TABLE tenancy_tenants (" +
	fmt.Sprintf(columns, "text", "datetime", "strftime('%Y-%m-%d %H:%M:%f', 'now')") + ");" + indexes

// notify is the function of the trigger that announces a row when one of the
// columns has changed.
func notify(columns ...string) string {
	all := func(row string) string { return "(" + row + "." + strings.Join(columns, ", "+row+".") + ")" }
	return fmt.Sprintf(`
CREATE OR REPLACE FUNCTION tenancy_tenants_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF TG_OP = 'UPDATE' AND %s IS NOT DISTINCT FROM %s THEN
		RETURN NULL;
	END IF;
	IF TG_OP <> 'INSERT' AND OLD.id IS NOT NULL THEN
		PERFORM pg_notify('%[3]s', OLD.id);
	END IF;
	IF TG_OP <> 'DELETE' AND NEW.id IS NOT NULL THEN
		PERFORM pg_notify('%[3]s', NEW.id);
	END IF;
	RETURN NULL;
END $$;`, all("OLD"), all("NEW"), channel)
}

// What the migrations of tenants need. Of a tenant, run, attempts and next_at say
// how far it is in the last run that it had a part in, attention for which
// migrations' fingerprint somebody has to do something, failure is equal for
// failures that are the same, outcome is the last migrate.Result. A run is of
// the whole fleet or of some tenants; a halt is of migrations, and not of a run:
// whoever begins them next is halted too.
const fleet = `
ALTER TABLE tenancy_tenants ADD COLUMN run bigint NOT NULL DEFAULT 0;
ALTER TABLE tenancy_tenants ADD COLUMN attempts bigint NOT NULL DEFAULT 0;
ALTER TABLE tenancy_tenants ADD COLUMN next_at bigint NOT NULL DEFAULT 0;
ALTER TABLE tenancy_tenants ADD COLUMN attention text NOT NULL DEFAULT '';
ALTER TABLE tenancy_tenants ADD COLUMN failure text NOT NULL DEFAULT '';
ALTER TABLE tenancy_tenants ADD COLUMN outcome text NOT NULL DEFAULT '';
CREATE INDEX tenancy_tenants_version ON tenancy_tenants (server, version) WHERE state IN ('active', 'suspended', 'ready');
CREATE TABLE tenancy_runs (
	id %[1]s,
	target bigint NOT NULL,
	fingerprint text NOT NULL,
	selective integer NOT NULL DEFAULT 0,
	canaries text NOT NULL DEFAULT '[]',
	note text NOT NULL DEFAULT '',
	began_at %[2]s NOT NULL DEFAULT (%[3]s),
	ended_at %[2]s
);
CREATE TABLE tenancy_halts (
	fingerprint text PRIMARY KEY,
	reason text NOT NULL,
	halted_at %[2]s NOT NULL DEFAULT (%[3]s)
);
CREATE TABLE tenancy_run_members (
	run bigint NOT NULL REFERENCES tenancy_runs (id) ON DELETE CASCADE,
	member text NOT NULL,
	until bigint NOT NULL,
	PRIMARY KEY (run, member)
);
CREATE TABLE tenancy_checkpoints (
	name text NOT NULL,
	uid text NOT NULL,
	done_at %[2]s NOT NULL DEFAULT (%[3]s),
	PRIMARY KEY (name, uid)
);`

// The schema's version is news too: pools are opened anew, without the plans
// that their connections remember.
var postgres2 = fmt.Sprintf(fleet, "bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY", "timestamptz", "now()") +
	notify("id", "state", "server", "dbname", "generation", "max_conns", "version", "fingerprint")

var sqlite2 = fmt.Sprintf(fleet, "integer PRIMARY KEY AUTOINCREMENT", "datetime", "strftime('%Y-%m-%d %H:%M:%f', 'now')")

// Migrate makes the catalog's tables in the main database, or brings them
// forward. It is safe to call at every start, by any number of processes. The
// tables' names begin with tenancy_; on PostgreSQL they are made
// in the first schema of the search_path.
func (c *Catalog) Migrate(ctx context.Context) error {
	if _, err := c.store.catalogID(ctx); err == nil {
		return nil // up to date: no right to change tables is needed
	}
	conn, err := c.store.db.Conn(ctx)
	if err != nil {
		return c.mainError("migrate", err)
	}
	defer conn.Close() //nolint:errcheck // it goes back to its pool
	begin := "BEGIN"
	if c.store.d.name == "sqlite" {
		begin = "BEGIN IMMEDIATE" // no other process is between the look and the change
	}
	if _, err := conn.ExecContext(ctx, begin); err != nil {
		return c.mainError("migrate", err)
	}
	if err = c.migrate(ctx, conn); err == nil {
		_, err = conn.ExecContext(ctx, "COMMIT")
	}
	if err != nil {
		_, _ = conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
		return c.mainError("migrate", err)
	}
	return nil
}

func (c *Catalog) migrate(ctx context.Context, conn *sql.Conn) error {
	d := c.store.d
	if d.lock != "" {
		if _, err := conn.ExecContext(ctx, d.lock); err != nil {
			return err
		}
	}
	if _, err := conn.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS "+catalogTable+
		" (one integer PRIMARY KEY CHECK (one = 1), id text NOT NULL, version integer NOT NULL)"); err != nil {
		return err
	}
	if _, err := conn.ExecContext(ctx, d.rebind("INSERT INTO "+catalogTable+
		" (one, id, version) VALUES (1, ?, 0) ON CONFLICT DO NOTHING"), newUID()); err != nil {
		return err
	}
	var version int
	if err := conn.QueryRowContext(ctx, "SELECT version FROM "+catalogTable).Scan(&version); err != nil {
		return err
	}
	if version > len(d.migrations) {
		return errNewer
	}
	for ; version < len(d.migrations); version++ {
		if _, err := conn.ExecContext(ctx, d.migrations[version]); err != nil {
			return fmt.Errorf("version %d: %w", version+1, err)
		}
		if _, err := conn.ExecContext(ctx, d.rebind("UPDATE "+catalogTable+" SET version = ?"), version+1); err != nil {
			return err
		}
	}
	return nil
}

var errNewer = errors.New("the catalog's tables are of a newer version than this program knows; update the program")

// Schema returns the SQL of all of the catalog's tables for a main database of
// GORM's dialect "postgres" or "sqlite", for those who review or run such
// things by themselves. It is what [Catalog.Migrate] runs, which also notes
// the version.
func Schema(dialect string) (string, error) {
	d, ok := dialects[dialect]
	if !ok {
		return "", fmt.Errorf("catalog: a main database of dialect %q is not supported; use postgres or sqlite", dialect)
	}
	return strings.Join(d.migrations, "\n"), nil
}
