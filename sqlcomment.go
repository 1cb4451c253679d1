package tenancy

import (
	"context"
	"database/sql/driver"
	"strings"

	"github.com/gorm-tenancy/tenancy/tenant"
)

// sqlComment returns what [Config.SQLComment] puts behind the statements of a
// tenant, in the form of sqlcommenter: the value is in quotes, and in URL
// encoding. An id that is valid has nothing to encode, so nothing in it can end
// the comment or the quotes.
func sqlComment(id string) string {
	if tenant.Validate(id) != nil {
		return "" // such a tenant has no pool; should it have one, it is not named
	}
	return "/*tenant='" + id + "'*/"
}

// commented returns query with the tenant's comment, if there is to be one. All
// connections of the dialer are one tenant's, so the text of a statement stays
// the same for each of them, and drivers that prepare by text prepare no more
// than before.
func (d *dialer) commented(query string) string {
	if d.comment == "" {
		return query
	}
	// Behind a semicolon the comment would be a statement of its own, an empty
	// one, which SQLite's driver refuses.
	query = strings.TrimRight(query, "; \t\r\n")
	space := " "
	if last := query[strings.LastIndexByte(query, '\n')+1:]; strings.Contains(last, "--") {
		space = "\n" // the line may end in a comment, which would swallow ours
	}
	return query + space + d.comment
}

// Prepare is called by database/sql for drivers without contexts.
func (h *handle) Prepare(query string) (driver.Stmt, error) {
	return h.Conn.Prepare(h.link.dialer.commented(query))
}

// PrepareContext is called by database/sql, also for what ExecContext and
// QueryContext can't do.
func (h *handle) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	return h.Conn.PrepareContext(ctx, h.link.dialer.commented(query))
}

// ExecContext is called by database/sql.
func (h *handle) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	return h.Conn.ExecContext(ctx, h.link.dialer.commented(query), args)
}

// QueryContext is called by database/sql.
func (h *handle) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	return h.Conn.QueryContext(ctx, h.link.dialer.commented(query), args)
}
