package sandbox

import (
	"context"
	"database/sql/driver"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gorm-tenancy/tenancy/internal/pgxconn"
)

// controlTimeout bounds the sandbox's own statements. They take no time, save
// where a deferred constraint has much to check.
const controlTimeout = 30 * time.Second

// cancelGrace is how long a statement may go on after the server was asked to
// cancel it. Then its connection is closed. Tests shorten it.
var cancelGrace = 5 * time.Second

// innerConn is what is needed of the driver's connection; pgx's has it.
type innerConn interface {
	driver.Conn
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
}

// link is the physical connection. Whoever holds its turn's busy uses it.
type link struct {
	conn innerConn
	pgx  *pgx.Conn // under conn
}

func dial(ctx context.Context, inner driver.Connector) (*link, error) {
	dc, err := inner.Connect(ctx)
	if err != nil {
		return nil, err
	}
	pc, isPgx := pgxconn.Of(dc)
	conn, can := dc.(innerConn)
	if !isPgx || !can {
		_ = dc.Close()
		return nil, fmt.Errorf("the connection is a %T, which gives no access to pgx; use a connector of tenancypg.Engine or of pgx's stdlib", dc)
	}
	l := &link{conn: conn, pgx: pc}
	// An application's limits for its transactions are not for one that lasts
	// for a test. Not every version has both.
	const noLimits = "SELECT set_config(name, '0', false) FROM pg_settings WHERE name IN ('idle_in_transaction_session_timeout', 'transaction_timeout')"
	if err := l.exec(ctx, noLimits); err != nil {
		_ = dc.Close()
		return nil, err
	}
	return l, nil
}

// control runs SQL of the sandbox's own, in one round trip, under no ctx of the
// code under test.
func (l *link) control(sql string) error {
	ctx, cancel := context.WithTimeout(context.Background(), controlTimeout)
	defer cancel()
	return l.exec(ctx, sql)
}

func (l *link) exec(ctx context.Context, sql string) error {
	return l.pgx.PgConn().Exec(ctx, sql).Close()
}

// state is the server's transaction status: 'I' outside of a transaction, 'T'
// inside, 'E' in one that has failed.
func (l *link) state() byte { return l.pgx.PgConn().TxStatus() }

// sever closes the connection whoever uses it, and asks nothing of the server.
func (l *link) sever() {
	_ = l.pgx.PgConn().Conn().Close()
}

// cancellable returns a ctx for a statement, with the values of ctx. When ctx or
// other ends, the server is asked to cancel the statement: pgx, by default, would
// close the connection (pgconn.DeadlineContextWatcherHandler). That is the last
// resort, for a server that does not.
//
// done must be called when the statement has ended. The server has got the
// request then, if there was one, and the next statement is safe from it: a
// process that is waiting for a statement ignores it.
func (l *link) cancellable(ctx, other context.Context) (inner context.Context, done func()) {
	inner, kill := context.WithCancel(context.WithoutCancel(ctx))
	request := func(from context.Context) func() {
		var hard *time.Timer
		asked := make(chan struct{})
		stop := context.AfterFunc(from, func() {
			defer close(asked)
			hard = time.AfterFunc(cancelGrace, kill)
			ctx, cancel := context.WithTimeout(context.Background(), cancelGrace)
			defer cancel()
			if err := l.pgx.PgConn().CancelRequest(ctx); err != nil {
				kill()
			}
		})
		return func() {
			if !stop() {
				<-asked
				hard.Stop()
			}
		}
	}
	first, second := request(ctx), request(other)
	return inner, func() {
		first()
		second()
		kill()
	}
}
