package tenancypg

import (
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/gorm-tenancy/tenancy"
)

// fromPooler reports whether e is PgBouncer's own words. It gives 08P01 to all
// it has to say (src/proto.c, send_pooler_error), before 1.20 also to what a
// server said to PgBouncer's login, such as that a database does not exist. It
// sends no field V, the severity that is never translated, as PostgreSQL does
// since 9.6.
func fromPooler(e *pgconn.PgError) bool {
	return e.Code == "08P01" && e.SeverityUnlocalized == ""
}

// The messages are those of PgBouncer's src/client.c, objects.c, janitor.c and
// server.c in 1.18 to 1.25, and, for what was forwarded without its code, of
// PostgreSQL's src/backend/utils/init/postinit.c and postmaster/postmaster.c.
// Servers say these in the language of their lc_messages; a translated one
// counts as the tenant's.
var (
	poolerFull = []string{
		"no more connections allowed",     // max_client_conn
		"client connections exceeded",     // max_db_client_connections, max_user_client_connections
		"query_wait_timeout",              // no server connection became free
		"sorry, too many clients already", // the server's max_connections
		"remaining connection slots are",  // reserved for superusers
		"too many connections for",        // a database's or a role's CONNECTION LIMIT
	}
	poolerDown = []string{
		"server conn crashed?",
		"server shutting down",
		"pooler is shutting down",
		"client_login_timeout (server down)",
		"connect failed",
		"cannot connect",
		"server DNS lookup failed",
		"the database system is", // starting up, shutting down, in recovery mode
	}
)

// classifyPooler says whose fault an error of PgBouncer is. A living PgBouncer
// answers for each database by itself, so that what one database gets says
// nothing of the others on its address: unless the message says otherwise, the
// fault is the tenant's.
func classifyPooler(message string, connecting bool) tenancy.Fault {
	// A login failed within server_login_retry; since 1.24 it says how. That
	// may be a server that is down as well as one missing database.
	if rest, ok := strings.CutPrefix(message, "server login has been failing, "); ok {
		message, connecting = strings.TrimPrefix(rest, "cached error: "), true
	}
	for _, prefix := range poolerFull {
		if strings.HasPrefix(message, prefix) {
			return tenancy.FaultSaturation
		}
	}
	for _, prefix := range poolerDown {
		if strings.HasPrefix(message, prefix) {
			return tenancy.FaultServer
		}
	}
	if connecting {
		return tenancy.FaultTenant
	}
	// One session's end: query_timeout, client_idle_timeout, an administrator's
	// KILL.
	return tenancy.FaultNone
}
