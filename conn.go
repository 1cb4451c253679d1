package tenancy

import (
	"context"
	"database/sql/driver"
	"sync/atomic"
	"time"

	"github.com/gorm-tenancy/tenancy/internal/driverwrap"
)

// link is one physical connection, from before its dial until it is truly
// gone: it is what a token of the server's budget stands for. It is the
// [Permit] of its connection. Its fields are guarded by server.mu; conn and
// born are written before there is a handle, and conn again by close.
type link struct {
	dialer  *dialer
	conn    driver.Conn        // of the engine; nil while it is dialled
	born    time.Duration      // when its dial began; once there is a handle, when that ended
	handle  *handle            // the one in use, or idle
	cancel  context.CancelFunc // of the dial
	closing bool               // closed to make room: its token comes back soon
	gone    bool
	at      int         // in server.links
	hangUp  *time.Timer // runs while the server does not hang up; may be nil
}

// Release implements [Permit].
func (l *link) Release() { l.dialer.server.release(l) }

// close closes the connection, which may take seconds where the server is
// silent. Only whoever made its handle dead calls it.
func (l *link) close() error {
	conn := l.conn
	l.conn = nil // dead handles still know l
	err := conn.Close()
	if _, ok := l.dialer.connector.(PermitConnector); ok {
		l.dialer.server.awaitHangUp(l)
	} else {
		l.Release()
	}
	return err
}

// The states of a handle.
const (
	handleBusy = iota // database/sql, or whoever called it, uses the connection
	handleIdle        // it lies in database/sql's pool
	handleDead        // the connection is closed, or has been given to another handle
)

// handle is what database/sql holds of a link. An idle one can be taken away
// without database/sql: by another caller of the same tenant, who gets the
// link with a new handle, or to make room for another tenant. What database/sql
// then still has is dead: it says [driver.ErrBadConn] when it is to be used
// again, and database/sql takes another (database/sql/sql.go, DB.retry).
type handle struct {
	driverwrap.Conn
	link *link
	// state changes by compare-and-swap where it leaves handleIdle, since
	// several may want an idle connection at once. Dead is for good.
	state atomic.Int32
	since atomic.Int64 // server.clock when it became idle
	spare bool         // database/sql does not know it; see server.dialled
}

func newHandle(l *link) *handle {
	h := &handle{link: l}
	h.Conn.Conn = l.conn
	return h
}

// take makes an idle handle dead: who gets true owns the link. A connection
// with open statements is left alone, since database/sql closes those whenever
// it likes, also on an idle connection.
func (h *handle) take() bool {
	taken := h.state.Load() == handleIdle && h.Statements() == 0 &&
		h.state.CompareAndSwap(handleIdle, handleDead)
	if taken {
		h.forget()
	}
	return taken
}

// forget lets go of the connection of a dead handle. database/sql keeps the
// handle until it is wanted again or ConnMaxIdleTime is over, and a connection
// of pgx has 75 KB: that many dead ones would cost more than all the live ones.
// Of a dead handle only methods are called that don't use it.
func (h *handle) forget() { h.Conn.Conn = nil }

// ResetSession is called by database/sql before it uses an idle connection.
func (h *handle) ResetSession(ctx context.Context) error {
	if !h.state.CompareAndSwap(handleIdle, handleBusy) {
		return driver.ErrBadConn
	}
	return h.Conn.ResetSession(ctx)
}

// IsValid is called by database/sql when a connection comes back
// (database/sql/sql.go, putConn). On false it closes the handle.
func (h *handle) IsValid() bool {
	return h.Conn.IsValid() && h.link.dialer.server.idle(h)
}

// Close is called by database/sql.
func (h *handle) Close() error {
	if h.state.Swap(handleDead) == handleDead {
		return nil
	}
	return h.link.close()
}
