package tenancypg

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/gorm-tenancy/tenancy"
)

// differ reports whether the application has a role of its own, which needs
// grants.
func (ses *session) differ() bool { return ses.roles.app != ses.roles.admin }

// Open implements [catalog.Session].
//
// The application's role gets SELECT, INSERT, UPDATE and DELETE on tables
// (SELECT only on [tenancy.MetaTable]), USAGE, SELECT and UPDATE on sequences,
// EXECUTE on functions and USAGE on schemas, in all schemas but the server's
// own. By default privileges it has the same on whatever the administrator
// makes later. Once these are there, Mark and Open grant nothing more: what a
// migration has revoked stays revoked. What another role owns, an extension's
// tables for instance, is that role's to grant, or Prepare's.
//
// Then ServerConfig.Prepare is called, and last of all, in one transaction, the
// settings are set and CONNECT and TEMPORARY are granted.
func (ses *session) Open(ctx context.Context) error {
	if err := ses.open(ctx); err != nil {
		return explain(fmt.Sprintf("opening %q to the application", ses.name), err)
	}
	return nil
}

func (ses *session) open(ctx context.Context) error {
	f, err := ses.facts(ctx, ses.name)
	switch {
	case err != nil:
		return err
	case !f.there || f.invalid:
		return errGone
	case f.template:
		return errors.New("it is a template")
	}
	if ses.differ() {
		err := ses.inTenant(ctx, func(pc *pgx.Conn) error {
			missing, err := ses.missingGrants(ctx, pc)
			if err != nil || len(missing) == 0 {
				return err
			}
			return execSimple(ctx, pc, strings.Join(missing, ";\n"))
		})
		if err != nil {
			return err
		}
	}
	if ses.s.cfg.Prepare != nil {
		if err := ses.prepare(ctx); err != nil {
			return err
		}
	}
	return ses.admit(ctx, f)
}

func (ses *session) prepare(ctx context.Context) error {
	db, err := ses.openTenant()
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // its work is done, or its error says so
	if err := ses.s.cfg.Prepare(ctx, db); err != nil {
		return fmt.Errorf("ServerConfig.Prepare: %w", err)
	}
	return nil
}

// admit sets the settings and lets the application connect.
func (ses *session) admit(ctx context.Context, f facts) error {
	var batch []string
	for _, name := range slices.Sorted(maps.Keys(ses.s.cfg.Settings)) {
		batch = append(batch, ses.setting(name, ses.s.cfg.Settings[name])...)
	}
	if ses.differ() {
		batch = append(batch, "GRANT CONNECT, TEMPORARY ON DATABASE "+ses.ident+" TO "+quote(ses.s.appRole))
	}
	if !f.allow {
		batch = append(batch, "ALTER DATABASE "+ses.ident+" ALLOW_CONNECTIONS true")
	}
	// A GRANT by a role that may not is a warning only.
	batch = append(batch, fmt.Sprintf("SELECT has_database_privilege(%d::oid, %d::oid, 'CONNECT')", ses.roles.app, f.oid))
	return ses.admin(ctx, func(pc *pgx.Conn) error {
		results, err := pc.PgConn().Exec(ctx, strings.Join(batch, ";\n")).ReadAll()
		if err != nil {
			return err
		}
		if last := results[len(results)-1]; len(last.Rows) != 1 || string(last.Rows[0][0]) != "t" {
			return fmt.Errorf("%s did not get CONNECT: make the administrator the database's owner", ses.s.appRole)
		}
		return nil
	})
}

// lists are the parameters whose value is a list of names: one string literal
// would be one name (src/backend/utils/misc/guc_tables.c, GUC_LIST_QUOTE).
var lists = []string{"search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries"}

func (ses *session) setting(name, value string) []string {
	var quoted []string
	for part := range strings.SplitSeq(name, ".") {
		quoted = append(quoted, quote(part))
	}
	set := "ALTER DATABASE " + ses.ident + " SET " + strings.Join(quoted, ".")
	if slices.Contains(lists, strings.ToLower(name)) {
		// Local to this transaction, which FROM CURRENT reads.
		return []string{"SELECT set_config(" + literal(name) + "," + literal(value) + ", true)", set + " FROM CURRENT"}
	}
	return []string{set + " TO" + literal(value)}
}

// missingGrants returns the statements that give the application its rights
// inside the database. When the default privileges are there, so is the rest:
// they came with the first of them, or were copied from a template.
func (ses *session) missingGrants(ctx context.Context, pc *pgx.Conn) ([]string, error) {
	if !ses.differ() {
		return nil, nil
	}
	// Asked alone: in a backend that has just begun, to plan the long query is
	// a good part of what it takes to create a tenant.
	var known bool
	err := pc.QueryRow(ctx, grantsKnownQuery, pgx.QueryExecModeExec,
		int64(ses.roles.app), int64(ses.roles.admin)).Scan(&known)
	if err != nil || known {
		return nil, err
	}
	rows, err := pc.Query(ctx, missingGrantsQuery, pgx.QueryExecModeExec,
		int64(ses.roles.admin), quote(ses.s.appRole), tenancy.MetaTable)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// $1 and $2 are the application's and the administrator's role.
const grantsKnownQuery = `
SELECT EXISTS (
	SELECT FROM pg_catalog.pg_default_acl d, pg_catalog.aclexplode(d.defaclacl) a
	WHERE d.defaclrole = $2::bigint::oid AND d.defaclnamespace = 0 AND d.defaclobjtype = 'r' AND a.grantee = $1::bigint::oid
)`

// The objects are those that the administrator, $1, may grant on.
const missingGrantsQuery = `
WITH schemas AS (
	SELECT n.oid, n.nspowner, pg_catalog.quote_ident(n.nspname) AS name FROM pg_catalog.pg_namespace n
	WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
), relations AS (
	SELECT c.relkind = 'S' AS seq, c.relname = $3::text AND n.name = 'public' AS meta,
		n.name || '.' || pg_catalog.quote_ident(c.relname) AS name
	FROM pg_catalog.pg_class c JOIN schemas n ON n.oid = c.relnamespace
	WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND pg_catalog.pg_has_role($1::bigint::oid, c.relowner, 'USAGE')
), statements AS (
	SELECT 1 AS step, 'GRANT USAGE ON SCHEMA ' || pg_catalog.string_agg(name, ', ') AS what FROM schemas
		WHERE pg_catalog.pg_has_role($1::bigint::oid, nspowner, 'USAGE')
	UNION ALL SELECT 2, 'GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE ' || pg_catalog.string_agg(name, ', ')
		FROM relations WHERE NOT seq AND NOT meta
	UNION ALL SELECT 3, 'GRANT SELECT ON TABLE ' || pg_catalog.string_agg(name, ', ') FROM relations WHERE meta
	UNION ALL SELECT 4, 'GRANT USAGE, SELECT, UPDATE ON SEQUENCE ' || pg_catalog.string_agg(name, ', ') FROM relations WHERE seq
	UNION ALL SELECT 5, 'GRANT EXECUTE ON ROUTINE ' || pg_catalog.string_agg(
			n.name || '.' || pg_catalog.quote_ident(p.proname) || '(' || pg_catalog.pg_get_function_identity_arguments(p.oid) || ')', ', ')
		FROM pg_catalog.pg_proc p JOIN schemas n ON n.oid = p.pronamespace
		WHERE pg_catalog.pg_has_role($1::bigint::oid, p.proowner, 'USAGE')
	UNION ALL SELECT 6, 'ALTER DEFAULT PRIVILEGES GRANT ' || g FROM (VALUES
		('USAGE ON SCHEMAS'), ('SELECT, INSERT, UPDATE, DELETE ON TABLES'), ('USAGE, SELECT, UPDATE ON SEQUENCES'), ('EXECUTE ON ROUTINES')) v (g)
)
SELECT what || ' TO ' || $2::text FROM statements WHERE what IS NOT NULL ORDER BY step`
