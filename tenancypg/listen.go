package tenancypg

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// noncePrefix begins the payloads by which Listen finds out whether it
	// hears anything; those of other processes are ignored as well.
	noncePrefix = "tenancy-listens-"
	// proofTimeout bounds that.
	proofTimeout = 3 * time.Second
	// silence is how long nothing may be heard before the connection is
	// tried, and silencePatience how long the answer may take.
	silence         = 10 * time.Second
	silencePatience = 4 * time.Second
)

// Listen implements [catalog.Listener] with LISTEN on a connection of main,
// which is closed when Listen returns. It needs a second connection of main
// for a moment, to prove that notifications arrive: behind a PgBouncer in
// transaction mode they don't, with no other error. A connection that died
// without a word is noticed within 15 seconds. heard should not block: the
// connection is not read meanwhile.
func (s *Server) Listen(ctx context.Context, main *sql.DB, channel string, ready func(), heard func(payload string)) error {
	doing := fmt.Sprintf("listening on %q", channel)
	if channel == "" || len(channel) > maxName || strings.IndexByte(channel, 0) >= 0 {
		return explain(doing, errors.New("a channel's name has 1 to 63 bytes, and no NUL"))
	}
	c, err := main.Conn(ctx)
	if err != nil {
		return explain(doing, err)
	}
	defer c.Close() //nolint:errcheck // closed below, at the end of Raw
	return explain(doing, Raw(c, func(pc *pgx.Conn) error {
		defer func() {
			// It still listens: no other user of the pool may get it.
			bye, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_ = pc.Close(bye)
		}()
		// Simple protocol, as for all that may go through a pooler.
		if err := execSimple(ctx, pc, "LISTEN "+quote(channel)); err != nil {
			return err
		}
		if err := proveHearing(ctx, pc, main, channel, heard); err != nil {
			return err
		}
		ready()
		return hear(ctx, pc, channel, heard)
	}))
}

// proveHearing sends a notification by another connection and waits for it.
func proveHearing(ctx context.Context, pc *pgx.Conn, main *sql.DB, channel string, heard func(string)) error {
	bounded, cancel := context.WithTimeout(ctx, proofTimeout)
	defer cancel()
	nonce := noncePrefix + rand.Text()
	// Without parameters, this is the simple protocol.
	if _, err := main.ExecContext(bounded, "NOTIFY "+quote(channel)+","+literal(nonce)); err != nil {
		if ctx.Err() == nil && bounded.Err() != nil {
			return fmt.Errorf("no second connection of the main database within %v to send a notification by (is its pool's limit 1, or used up?): %w", proofTimeout, err)
		}
		return err
	}
	for {
		n, err := pc.WaitForNotification(bounded)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case bounded.Err() != nil:
			return fmt.Errorf("a notification that was just sent did not arrive within %v: the main database is reached through a pooler in transaction mode (PgBouncer's pool_mode); LISTEN needs a direct connection, or pool_mode=session", proofTimeout)
		case err != nil:
			return err
		case n.Channel == channel && n.Payload == nonce:
			return nil
		case n.Channel == channel && !strings.HasPrefix(n.Payload, noncePrefix):
			heard(n.Payload)
		}
	}
}

func hear(ctx context.Context, pc *pgx.Conn, channel string, heard func(string)) error {
	for {
		n, err := waitBounded(ctx, pc)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return err
		case n == nil: // silence, and it answers
		case n.Channel == channel && !strings.HasPrefix(n.Payload, noncePrefix):
			heard(n.Payload)
		}
	}
}

// waitBounded waits for a notification, and in silence asks the server whether
// it is still there. A wait that ends by time leaves the connection as it was
// (pgconn.go, PgConn.WaitForNotification and peekMessage).
func waitBounded(ctx context.Context, pc *pgx.Conn) (n *pgconn.Notification, err error) {
	quiet, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	n, err = pc.WaitForNotification(quiet)
	if err == nil || quiet.Err() == nil || pc.IsClosed() {
		return n, err
	}
	patience, cancel := context.WithTimeout(ctx, silencePatience)
	defer cancel()
	if err := execSimple(patience, pc, "SELECT 1"); err != nil {
		return nil, fmt.Errorf("the connection was silent: %w", err)
	}
	return nil, nil
}
