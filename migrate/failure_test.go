package migrate

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
)

func TestJudge(t *testing.T) {
	t.Parallel()
	pg := func(code string) error { return &pgconn.PgError{Code: code, Message: "tenant 17 said \"x\""} }
	in := func(err error) error { return fmt.Errorf("up: %w", &FailedError{Version: 7, Name: "add", Err: err}) }
	for name, c := range map[string]struct {
		err               error
		fault             tenancy.Fault
		transient, server bool
		state             string
	}{
		"a lock on a table":       {err: in(pg("55P03")), transient: true, state: "55P03"},
		"deadlock":                {err: in(pg("40P01")), transient: true, state: "40P01"},
		"serialization":           {err: in(pg("40001")), transient: true, state: "40001"},
		"ended by an operator":    {err: in(pg("57P01")), transient: true, state: "57P01"},
		"too many connections":    {err: pg("53300"), fault: tenancy.FaultSaturation, transient: true, state: "53300"},
		"disk full":               {err: in(pg("53100")), transient: true, state: "53100"},
		"statement timeout":       {err: in(pg("57014")), state: "57014"},
		"syntax":                  {err: in(pg("42601")), state: "42601"},
		"unique violation":        {err: in(pg("23505")), state: "23505"},
		"no such database":        {err: pg("3D000"), fault: tenancy.FaultTenant, state: "3D000"},
		"server down":             {err: errors.New("connection refused"), fault: tenancy.FaultServer, transient: true, server: true},
		"server dies meanwhile":   {err: in(errors.New("broken pipe")), fault: tenancy.FaultServer, transient: true},
		"connection reset":        {err: in(driver.ErrBadConn), transient: true},
		"connection lost":         {err: in(io.ErrUnexpectedEOF), transient: true},
		"locked by another":       {err: fmt.Errorf("open: %w", ErrLocked), transient: true},
		"a pooler":                {err: fmt.Errorf("%w: %w", ErrPooler, pg("08P01"))},
		"wrong database":          {err: fmt.Errorf("%w: it says x", tenancy.ErrWrongDatabase), fault: tenancy.FaultServer},
		"a migration's own error": {err: in(errors.New("bad data"))},
		"busy SQLite":             {err: in(liteError(5)), transient: true},
		"locked SQLite, extended": {err: in(liteError(6 | 1<<8)), transient: true},
		"constraint of SQLite":    {err: in(liteError(19))},
	} {
		f := judge(c.err, errors.As(c.err, new(*FailedError)), func(error) tenancy.Fault { return c.fault })
		require.Equal(t, c.transient, f.transient, name)
		require.Equal(t, c.server, f.server, name)
		if c.state != "" {
			require.Equal(t, c.state, f.sqlState, name)
		}
	}
}

type liteError int

func (e liteError) Error() string { return fmt.Sprint("sqlite: ", int(e)) }
func (e liteError) Code() int     { return int(e) }

// What can't even be opened may go away by itself: a vault that is sealed, say.
func TestJudgeCredential(t *testing.T) {
	t.Parallel()
	f := judge(errors.New("BeforeConnect: the vault is sealed"), false, func(error) tenancy.Fault { return tenancy.FaultNone })
	require.True(t, f.transient)
	require.False(t, f.server)
}

// What the breaker counts as the same failure.
func TestLikeness(t *testing.T) {
	t.Parallel()
	key := func(err error) string {
		return judge(err, true, func(error) tenancy.Fault { return tenancy.FaultNone }).key
	}
	failed := func(version int64, text string) error {
		return &FailedError{Version: version, Name: "x", Err: errors.New(text)}
	}
	require.Equal(t, key(failed(7, `order 17 of "acme" is odd`)), key(failed(7, `order 4 of "globex" is odd`)))
	require.NotEqual(t, key(failed(7, "odd")), key(failed(8, "odd")))
	require.NotEqual(t, key(failed(7, "odd")), key(failed(7, "even")))
}

func TestPause(t *testing.T) {
	t.Parallel()
	o := Options{}.withDefaults()
	require.EqualValues(t, 1e9, o.pause(1))
	require.EqualValues(t, 4e9, o.pause(3))
	require.Equal(t, longestPause, o.pause(50))
}
