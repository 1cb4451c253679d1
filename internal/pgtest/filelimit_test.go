package pgtest_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/gorm-tenancy/tenancy/internal/pgtest"
)

func TestFileLimit(t *testing.T) {
	t.Parallel()
	const limit = 20 << 20
	pg := pgtest.Start(t, pgtest.FileLimit(limit))
	conn := pg.Admin(t)
	if _, err := conn.Exec(t.Context(), "CREATE TABLE big (a text); ALTER TABLE big ALTER a SET STORAGE PLAIN"); err != nil {
		t.Fatal(err)
	}
	fill := "INSERT INTO big SELECT repeat('x', 4000) FROM generate_series(1, $1::int)"
	if _, err := conn.Exec(t.Context(), fill, 4000); err != nil { // 2 rows on a page, 15.6 MiB
		t.Fatalf("below the limit: %v", err)
	}
	_, err := conn.Exec(t.Context(), fill, 2000)
	tooLarge := func(err error) bool {
		var pgErr *pgconn.PgError
		return errors.As(err, &pgErr) && strings.Contains(pgErr.Message, "File too large")
	}
	if !tooLarge(err) {
		t.Fatalf("above the limit: %v", err)
	}
	var size int64
	if err := conn.QueryRow(t.Context(), "SELECT pg_relation_size('big')").Scan(&size); err != nil || size < 15<<20 || size > limit {
		t.Errorf("%d bytes, %v", size, err)
	}
	mustAnswer(t, pg)
	pg.Restart() // and the limit with it; the process is still ours
	conn = pg.Admin(t)
	if _, err := conn.Exec(t.Context(), fill, 2000); !tooLarge(err) {
		t.Errorf("after a restart: %v", err)
	}
	pg.Kill()
	mustNotAnswer(t, pg)
}
