package testsqlite

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/gorm-tenancy/tenancy/tenancytest"
	"github.com/gorm-tenancy/tenancy/tenancytest/internal/backendtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, dir string) *server {
	t.Helper()
	s, err := Backend{Dir: dir}.Open(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	return s.(*server)
}

// Of all that ask for a template at once, in any number of runs, one makes it.
func TestTemplateRace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	backendtest.TemplateRace(t, func() tenancytest.Server { return start(t, dir) })
}

// What is of use to others stays, until it is old.
func TestSweep(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const one, two, third, key = "111111111111", "222222222222", "333333333333", "0123456789abcdef0123"
	var kept []string
	var template string
	for _, pkg := range []string{one, two} {
		s := start(t, dir)
		s.pkg = pkg
		var err error
		template, err = s.Template(t.Context(), key, true, backendtest.Table)
		require.NoError(t, err)
		d, err := s.Clone(t.Context(), template)
		require.NoError(t, err)
		_, err = d.Keep(t.Context(), "TestX/sub test")
		require.NoError(t, err)
		kept = append(kept, filepath.Join(dir, keptPrefix+pkg+"-"+s.id))
		if pkg == two { // whose run goes on for now
			start(t, dir).Close(t.Context())
		}
		require.NoError(t, s.Close(t.Context()))
	}
	age := func(path string, by time.Duration) {
		t.Helper()
		at := time.Now().Add(-by)
		require.NoError(t, os.Chtimes(path, at, at))
	}
	there := func(want ...string) {
		t.Helper()
		all, err := filepath.Glob(filepath.Join(dir, "*"))
		require.NoError(t, err)
		require.Equal(t, want, all)
	}
	sweep := func(pkg string) {
		t.Helper()
		s := start(t, dir)
		s.pkg = pkg
		require.NoError(t, s.sweep(t.Context()))
		require.NoError(t, s.Close(t.Context()))
	}
	age(kept[0], keptTime-time.Minute)
	age(kept[1], keptTime-time.Minute)
	age(template, templateTime-time.Minute)
	sweep(third)
	there(kept[0], kept[1], template)
	sweep(one)
	there(kept[1], template)
	age(kept[1], keptTime+time.Minute)
	sweep(third)
	there(template)
	age(template, templateTime+time.Minute)
	sweep(third)
	there()

	// What others have named so.
	mine := []string{filepath.Join(dir, "kept-mine"), filepath.Join(dir, "run-mine"), filepath.Join(dir, "template-mine.db")}
	for _, path := range mine {
		require.NoError(t, os.Mkdir(path, 0o700))
		age(path, 2*templateTime)
	}
	sweep(third)
	there(mine...)
}

// A migration that leaves its database open would leave a template that is
// only half in its file.
func TestTemplateLeftOpen(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	var conn *sql.DB
	_, err := s.Template(t.Context(), "k", true, func(ctx context.Context, db *sql.DB) error {
		var err error
		if conn, err = open(filepath.Join(s.run, "1.db")); err != nil {
			return err
		}
		return backendtest.Table(ctx, conn)
	})
	require.ErrorContains(t, err, "left a connection to its database open")
	require.NoError(t, conn.Close())
	_, err = s.Template(t.Context(), "k", true, backendtest.Table)
	require.NoError(t, err)
}
