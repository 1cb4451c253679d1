package tenancypg

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/gorm-tenancy/tenancy"
)

var _ tenancy.ReplicaEngine = Engine{}

// readOnlyParam makes each transaction of a session read-only, also on a server
// that takes writes.
const readOnlyParam = "default_transaction_read_only"

// errReplicaWrites is why a connection is not used as a replica's.
var errReplicaWrites = errors.New("tenancypg: the replica's session would take writes: " +
	"the server is no standby, and what is in between (a PgBouncer) does not pass on " + readOnlyParam +
	"; lead the replica's DSN to a standby, or let connect_query in PgBouncer's [databases] set the parameter")

// ReplicaConnector is [Engine.Connector] for a replica. Its sessions are
// read-only (default_transaction_read_only), so that nothing is written even if
// the standby is promoted, or was none. Statements that set the parameter
// themselves get around that, as they are meant to.
//
// A PgBouncer refuses the parameter unless it is told about it. The connector
// then does without, and uses a connection only if the server is a standby at
// that time: see docs/replicas.md for how to make it safe over a promotion.
func (e Engine) ReplicaConnector(dsn string) (driver.Connector, error) {
	cfg, loc, err := e.parse(dsn)
	if err != nil {
		return nil, err
	}
	return newReplicaConnector(cfg, loc, e.BeforeConnect), nil
}

// replicaConnector opens read-only connections.
type replicaConnector struct {
	*connector            // asks for read-only sessions
	bare       *connector // doesn't, for a PgBouncer that refuses such a parameter
	refused    atomic.Bool
}

func newReplicaConnector(cfg *pgx.ConnConfig, loc *time.Location, before beforeConnect) *replicaConnector {
	asking := cfg.Copy()
	if asking.RuntimeParams == nil {
		asking.RuntimeParams = map[string]string{}
	}
	asking.RuntimeParams[readOnlyParam] = "on"
	return &replicaConnector{connector: newConnector(asking, loc, before), bare: newConnector(cfg, loc, before)}
}

func (c *replicaConnector) Connect(ctx context.Context) (driver.Conn, error) {
	return c.ConnectPermit(ctx, nil)
}

// ConnectPermit dials one connection, as the connector of a primary does.
func (c *replicaConnector) ConnectPermit(ctx context.Context, permit tenancy.Permit) (driver.Conn, error) {
	if !c.refused.Load() {
		dc, err := c.connector.ConnectPermit(ctx, permit)
		if !refusesParameter(err) {
			return checkReadOnly(ctx, dc, err)
		}
		c.refused.Store(true)
	}
	dc, err := c.bare.ConnectPermit(ctx, permit)
	return checkReadOnly(ctx, dc, err)
}

// refusesParameter reports whether err is PgBouncer's about our parameter
// (src/client.c, set_startup_options and decide_startup_pool).
func refusesParameter(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && fromPooler(e) &&
		strings.HasPrefix(e.Message, "unsupported startup parameter") && strings.Contains(e.Message, readOnlyParam)
}

// checkReadOnly closes a new connection whose session takes writes.
func checkReadOnly(ctx context.Context, dc driver.Conn, err error) (driver.Conn, error) {
	if err != nil {
		return nil, err
	}
	var safe bool
	// The simple protocol leaves no prepared statement behind a PgBouncer.
	err = dc.(*conn).Conn().QueryRow(ctx,
		"SELECT pg_is_in_recovery() OR current_setting('"+readOnlyParam+"') = 'on'", pgx.QueryExecModeSimpleProtocol).Scan(&safe)
	if err == nil && !safe {
		err = errReplicaWrites
	} else if err != nil {
		err = fmt.Errorf("tenancypg: asking whether the session is read-only: %w", err)
	}
	if err != nil {
		_ = dc.Close()
		return nil, err
	}
	return dc, nil
}

// ReplicaRefused reports whether a standby could not run a statement that the
// primary can, by its SQLSTATE: it would write (25006), it was in the way of
// what is replayed (40001 and 40P01, which come from nothing else there), a
// replayed migration has outdated its plan or a standby lacks the feature
// (0A000), or it names a table, column, function or the like that is not there (42P01, 42703,
// 42883, 42704, 3F000), and may be on the primary since a moment ago.
func (Engine) ReplicaRefused(err error) bool {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code {
	case "25006", "40001", "40P01", "0A000", "42P01", "42703", "42883", "42704", "3F000":
		return true
	}
	return false
}
