package pgtest_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gorm-tenancy/tenancy/internal/pgtest"
)

const orphanEnv = "PGTEST_ORPHAN"

// TestOrphan: a server does not outlive a test process that is killed, not
// even while it is frozen, nor does a PgBouncer or a standby.
func TestOrphan(t *testing.T) {
	if how := os.Getenv(orphanEnv); how != "" {
		orphan(t, how)
		return
	}
	for _, how := range []string{"running", "frozen", "bouncer", "standby"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			pg := pgtest.Start(t) // skips where there is no PostgreSQL
			switch how {
			case "bouncer":
				pgtest.StartBouncer(t, pg).Stop()
			case "standby":
				pg.Standby(t).Kill()
			}
			pg.Kill()

			child := exec.Command(os.Args[0], "-test.run=^TestOrphan$", "-test.v=false")
			child.Env = append(os.Environ(), orphanEnv+"="+how)
			stdin, err := child.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			stdout, err := child.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := child.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = child.Process.Kill(); _ = child.Wait() })
			lines := bufio.NewScanner(stdout)
			read := func() string {
				for lines.Scan() {
					if s, ok := strings.CutPrefix(lines.Text(), "orphan: "); ok {
						return s
					}
				}
				t.Fatalf("the child ended: %v", lines.Err())
				return ""
			}

			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			conn, err := pgx.Connect(ctx, read())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(context.Background())
			if _, err := io.WriteString(stdin, "connected\n"); err != nil {
				t.Fatal(err)
			}
			read() // ready to die

			if err := child.Process.Kill(); err != nil {
				t.Fatal(err)
			}

			// The session ends when the server does.
			if _, err := conn.WaitForNotification(ctx); ctx.Err() != nil {
				t.Errorf("the server still runs: %v", err)
			}
		})
	}
}

func orphan(t *testing.T, how string) {
	pg := pgtest.Start(t)
	dsn := pg.DSN("postgres")
	switch how {
	case "bouncer":
		// The console's sessions end with PgBouncer, not with the server.
		dsn = pgtest.StartBouncer(t, pg).DSN("pgbouncer")
	case "standby":
		dsn = pg.Standby(t).DSN("postgres")
	}
	fmt.Println("orphan:", dsn)
	in := bufio.NewReader(os.Stdin)
	if _, err := in.ReadString('\n'); err != nil {
		return // the parent is gone
	}
	if how == "frozen" {
		pg.Freeze()
	}
	fmt.Println("orphan: ready")
	_, _ = in.ReadString('\n')
}
