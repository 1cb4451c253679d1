package tenancypg

import (
	"context"
	"database/sql"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/migrate"
)

var _ migrate.Inspector = (*Server)(nil)

// Inspect implements [migrate.Inspector], in one round trip. The digest is of
// all schemas but the system's, and of: tables, columns, constraints, indexes,
// views, rules, triggers, row security policies, functions, sequences' names,
// enums, domains, composite types, and the extensions' names. What belongs to
// an extension, who owns what, privileges and comments are not in it. Servers
// of different major versions may describe one schema in different words.
//
// db must be a pool of pgx's.
func (Engine) Inspect(ctx context.Context, db *sql.DB) (migrate.Inspection, error) {
	const doing = "inspecting a database"
	c, err := db.Conn(ctx)
	if err != nil {
		return migrate.Inspection{}, explain(doing, err)
	}
	defer c.Close() //nolint:errcheck // it goes back to the pool
	var results []*pgconn.Result
	err = Raw(c, func(pc *pgx.Conn) (err error) {
		// One message of several statements is one transaction.
		results, err = pc.PgConn().Exec(ctx, inspectSettings+inspectQuery()+";"+invalidQuery).ReadAll()
		return err
	})
	if err != nil {
		return migrate.Inspection{}, explain(doing, err)
	}
	n := len(results)
	out := migrate.Inspection{Schema: string(results[n-2].Rows[0][0])}
	for _, row := range results[n-1].Rows {
		out.Invalid = append(out.Invalid, string(row[0]))
	}
	return out, nil
}

// Inspect is [Engine.Inspect].
func (s *Server) Inspect(ctx context.Context, db *sql.DB) (migrate.Inspection, error) {
	return s.cfg.AdminEngine.Inspect(ctx, db)
}

// inspectSettings are those on which the words of the server's descriptions
// depend. With this search_path all names but the system's are qualified.
const inspectSettings = `SET LOCAL search_path TO pg_catalog; SET LOCAL quote_all_identifiers TO off;
	SET LOCAL datestyle TO ISO; SET LOCAL intervalstyle TO postgres; SET LOCAL timezone TO 'UTC';
	SET LOCAL bytea_output TO hex; SET LOCAL extra_float_digits TO 1; `

const invalidQuery = `
	SELECT format('%I.%I', n.nspname, c.relname)
	FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
	WHERE NOT i.indisvalid AND c.relkind = 'i' ORDER BY 1`

// toolTables are the tables that are left out: those of migration tools, and
// our own.
var toolTables = []string{"goose_db_version", "migrations", "schema_migrations", "_tenant_schema", tenancy.MetaTable}

// own is a condition: the object is no extension's.
func own(catalog, oid string) string {
	return "NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = '" + catalog + "'::regclass AND e.objid = " + oid + " AND e.deptype = 'e')"
}

// inspectQuery returns one row, the digest. Each part makes a line of text for
// each object; the lines are sorted, so that neither oids nor the order of
// columns matter.
func inspectQuery() string {
	skip := make([]string, len(toolTables))
	for i, name := range toolTables {
		skip[i] = literal(name)
	}
	return strings.NewReplacer(
		"$skip", strings.Join(skip, ","),
		"$ownNamespace", own("pg_namespace", "n.oid"),
		"$ownClass", own("pg_class", "c.oid"),
		"$ownType", own("pg_type", "t.oid"),
		"$ownProc", own("pg_proc", "p.oid"),
	).Replace(inspectText)
}

// A sequence is left out with the table that it belongs to. The NOT NULL
// constraints of PostgreSQL 18 (contype n) say what the columns do. Whether an
// index is valid is in the digest: a unique one that is not holds nothing.
const inspectText = `
WITH ns AS MATERIALIZED (
	SELECT n.oid, n.nspname FROM pg_namespace n
	WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND $ownNamespace
), rel AS MATERIALIZED (
	SELECT c.*, format('%I.%I', n.nspname, c.relname) AS name
	FROM pg_class c JOIN ns n ON n.oid = c.relnamespace
	WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c') AND c.relname NOT IN ($skip) AND $ownClass
		AND NOT EXISTS (SELECT FROM pg_depend d JOIN pg_class o ON o.oid = d.refobjid
			WHERE c.relkind = 'S' AND d.classid = 'pg_class'::regclass AND d.objid = c.oid
				AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') AND o.relname IN ($skip))
), typ AS MATERIALIZED (
	SELECT t.*, format('%I.%I', n.nspname, t.typname) AS name
	FROM pg_type t JOIN ns n ON n.oid = t.typnamespace WHERE t.typtype IN ('e', 'd', 'r') AND $ownType
), line(parts) AS (
	SELECT ARRAY['schema', nspname::text] FROM ns
	UNION ALL
	SELECT ARRAY['extension', extname::text] FROM pg_extension
	UNION ALL
	SELECT ARRAY['relation', name, relkind::text, relpersistence::text, relrowsecurity::text, relforcerowsecurity::text,
		reloptions::text, pg_get_partkeydef(oid), pg_get_expr(relpartbound, oid),
		(SELECT string_agg(i.inhparent::regclass::text, ' ' ORDER BY i.inhparent::regclass::text COLLATE "C") FROM pg_inherits i WHERE i.inhrelid = rel.oid),
		CASE WHEN relkind IN ('v', 'm') THEN pg_get_viewdef(oid) END]
	FROM rel
	UNION ALL
	SELECT ARRAY['column', r.name, a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull::text,
		a.attidentity::text, a.attgenerated::text, pg_get_expr(d.adbin, d.adrelid),
		CASE WHEN a.attcollation <> 0 THEN a.attcollation::regcollation::text END]
	FROM rel r JOIN pg_attribute a ON a.attrelid = r.oid LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
	WHERE r.relkind <> 'S' AND a.attnum > 0 AND NOT a.attisdropped
	UNION ALL
	SELECT ARRAY['constraint', coalesce(r.name, t.name), c.conname::text, pg_get_constraintdef(c.oid), c.convalidated::text]
	FROM pg_constraint c LEFT JOIN rel r ON r.oid = c.conrelid LEFT JOIN typ t ON t.oid = c.contypid
	WHERE c.contype <> 'n' AND coalesce(r.name, t.name) IS NOT NULL
	UNION ALL
	SELECT ARRAY['index', pg_get_indexdef(i.indexrelid), i.indisvalid::text, i.indisreplident::text]
	FROM pg_index i JOIN rel r ON r.oid = i.indrelid
	UNION ALL
	SELECT ARRAY['rule', pg_get_ruledef(w.oid), w.ev_enabled::text]
	FROM pg_rewrite w JOIN rel r ON r.oid = w.ev_class WHERE w.rulename <> '_RETURN'
	UNION ALL
	SELECT ARRAY['trigger', pg_get_triggerdef(g.oid), g.tgenabled::text]
	FROM pg_trigger g JOIN rel r ON r.oid = g.tgrelid WHERE NOT g.tgisinternal
	UNION ALL
	SELECT ARRAY['policy', r.name, p.polname::text, p.polcmd::text, p.polpermissive::text,
		pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)]
	FROM pg_policy p JOIN rel r ON r.oid = p.polrelid
	UNION ALL
	SELECT ARRAY['function', format('%I.%I', n.nspname, p.proname), p.prokind::text, pg_get_function_identity_arguments(p.oid),
		pg_get_function_result(p.oid), CASE WHEN p.prokind <> 'a' THEN pg_get_functiondef(p.oid) END]
	FROM pg_proc p JOIN ns n ON n.oid = p.pronamespace WHERE $ownProc
	UNION ALL
	SELECT ARRAY['type', name, typtype::text, format_type(typbasetype, typtypmod), typnotnull::text, pg_get_expr(typdefaultbin, 0),
		(SELECT format_type(rngsubtype, NULL) FROM pg_range WHERE rngtypid = typ.oid),
		(SELECT string_agg(quote_literal(enumlabel), ' ' ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = typ.oid)]
	FROM typ
)
SELECT encode(sha256(convert_to(coalesce(string_agg(parts::text, E'\n' ORDER BY parts::text COLLATE "C"), ''), getdatabaseencoding())), 'hex') FROM line`
