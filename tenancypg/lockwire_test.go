package tenancypg

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
)

// wire counts the connections that are dialled and what goes over them, by an
// Engine's Configure.
type wire struct {
	mu     sync.Mutex
	dialed int
	trace  strings.Builder
}

func (w *wire) tap(cfg *pgx.ConnConfig) error {
	dial := cfg.DialFunc
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		w.mu.Lock()
		w.dialed++
		w.mu.Unlock()
		return dial(ctx, network, addr)
	}
	cfg.BuildFrontend = func(r io.Reader, out io.Writer) *pgproto3.Frontend {
		f := pgproto3.NewFrontend(r, out)
		f.Trace(w, pgproto3.TracerOptions{SuppressTimestamps: true})
		return f
	}
	return nil
}

// Write takes pgproto3's trace.
func (w *wire) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.trace.Write(b)
}

// counts returns the number of connections, and how often the server has
// answered that it is ready: once for each login, once for each round trip.
func (w *wire) counts() (dialed, ready int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dialed, strings.Count(w.trace.String(), "ReadyForQuery")
}

func countCalls(n *int) func(context.Context, *pgx.ConnConfig) error {
	return func(context.Context, *pgx.ConnConfig) error { *n++; return nil }
}
