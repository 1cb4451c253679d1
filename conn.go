package tenancy

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/gorm-tenancy/tenancy/internal/driverwrap"
)

// link is one physical connection, from before its dial until it is truly
// gone: it is what a token of the server's budget stands for. It is the
// [Permit] of its connection. Its fields are guarded by server.mu; conn and
// born are written before there is a handle, and not after.
type link struct {
	dialer  *dialer
	conn    driver.Conn        // of the engine; nil while it is dialled
	born    time.Duration      // when its dial began; once there is a handle, when that ended
	handle  *handle            // the one in use, or idle
	cancel  context.CancelFunc // of the dial
	fullAt  time.Duration      // while it is dialled: when the server last had no connection left; 0 for never
	closing bool               // closed to make room: its token comes back soon
	late    *time.Timer        // ends closing, if the close hangs
	gone    bool
	at      int         // in server.links
	hangUp  *time.Timer // runs while the server does not hang up; may be nil
}

// Release implements [Permit].
func (l *link) Release() { l.dialer.server.release(l) }

// isIdle reports whether the connection is idle; it may be taken at any time.
func (l *link) isIdle() bool { return l.handle != nil && l.handle.state.Load() == handleIdle }

// close closes the connection, which may take seconds where the server is
// silent. Only whoever made its handle dead calls it.
func (l *link) close() (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("tenancy: the driver panicked when it closed a connection: %v", r)
			l.Release()
		}
	}()
	err = l.conn.Close()
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
	// state leaves handleBusy by its one user, and handleIdle by
	// compare-and-swap, since several may want an idle connection. Dead is for
	// good. Who makes the change owns the other fields.
	state atomic.Int32
	since atomic.Int64    // server.clock when it became idle
	tx    context.Context // of the latest BeginTx
	spare bool            // database/sql does not know it; see server.dialled
}

func newHandle(l *link) *handle {
	h := &handle{link: l}
	h.Conn.Conn = l.conn
	h.Conn.Hold = h.hold
	return h
}

// take makes an idle handle dead, and returns its link to the one caller who
// succeeds. The handle may lie in database/sql's pool for long, so it lets go
// of the rest.
func (h *handle) take() *link {
	if !h.state.CompareAndSwap(handleIdle, handleDead) {
		return nil
	}
	l := h.link
	h.link, h.Conn.Conn = nil, nil
	return l
}

// hold is asked before a statement is closed, which database/sql does whenever
// it likes: also on an idle connection, or one that was taken away.
func (h *handle) hold() (release func(), ok bool) {
	switch {
	case h.state.CompareAndSwap(handleIdle, handleBusy):
		return func() {
			if !h.link.dialer.server.idle(h) {
				_ = h.Close()
			}
		}, true
	case h.state.Load() == handleBusy: // database/sql's own lock keeps others out
		return func() {}, true
	}
	return nil, false
}

// ResetSession is called by database/sql before it uses an idle connection.
func (h *handle) ResetSession(ctx context.Context) error {
	if !h.state.CompareAndSwap(handleIdle, handleBusy) {
		return driver.ErrBadConn
	}
	return h.Conn.ResetSession(ctx)
}

// aliveTime bounds the ping of handle.usable.
const aliveTime = time.Second

// usable does what database/sql does before it uses a connection again, for one
// that has changed hands. If the connection was idle, it also asks the server:
// database/sql wants a new one when several idle ones were bad, and gives up if
// that one is too. What is not usable is closed.
func (h *handle) usable(ctx context.Context, idle bool) (ok bool) {
	defer func() {
		if !ok { // also after a panic of the driver
			_ = h.Close()
		}
	}()
	if errors.Is(h.Conn.ResetSession(ctx), driver.ErrBadConn) {
		return false
	}
	if !idle || ctx.Err() != nil { // then nothing will be sent
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, aliveTime)
	defer cancel()
	return h.Conn.Ping(ctx) == nil
}

// BeginTx notes ctx for IsValid.
func (h *handle) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	h.tx = ctx
	return h.Conn.BeginTx(ctx, opts)
}

// IsValid is called by database/sql when a connection comes back
// (database/sql/sql.go, putConn). On false it closes the handle.
func (h *handle) IsValid() bool {
	if h.state.Load() != handleBusy {
		return false // dead is for good
	}
	ctx := h.tx
	h.tx = nil
	// When a transaction's ctx ends, database/sql rolls back, and closes the
	// connection unless that can judge itself whether it is good
	// (database/sql/sql.go, DB.beginDC, keepConnOnRollback). It takes the
	// handle for one that can; the driver's may not.
	if ctx != nil && ctx.Err() != nil && !h.Judges() {
		return false
	}
	return h.Conn.IsValid() && h.link.dialer.server.idle(h)
}

// Close is called by database/sql.
func (h *handle) Close() error {
	if h.state.Swap(handleDead) == handleDead {
		return nil
	}
	return h.link.close()
}
