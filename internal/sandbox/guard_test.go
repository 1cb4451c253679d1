package sandbox_test

import (
	"testing"

	"github.com/gorm-tenancy/tenancy/internal/sandbox"
)

func TestRefuse(t *testing.T) {
	for _, query := range []string{
		"BEGIN", "begin", "  \n COMMIT;", "-- why\nCOMMIT", "/* a\nb */ commit and chain", ";;End", "ABORT", "ROLLBACK", "rollback work",
		"ROLLBACK AND CHAIN", "START TRANSACTION", "start /* x */ transaction read only", "BEGIN; INSERT INTO users (name) VALUES ('a'); COMMIT",
		"PREPARE TRANSACTION 'x'", "COMMIT PREPARED 'x'",
	} {
		if err := sandbox.Refuse(query); err == nil {
			t.Errorf("not refused: %s", query)
		}
	}
	for _, query := range []string{
		"", ";", "--", "SELECT 1", "SELECT 'COMMIT'", "ROLLBACK TO x", "ROLLBACK TO SAVEPOINT x", "rollback work to x", "ROLLBACK TRANSACTION TO SAVEPOINT x",
		"SAVEPOINT x", "RELEASE x", "PREPARE x AS SELECT 1", "DO $$ BEGIN END $$", "-- COMMIT", "ENDLESS", "SET TRANSACTION READ ONLY",
	} {
		if err := sandbox.Refuse(query); err != nil {
			t.Errorf("%s: %v", query, err)
		}
	}
}

func TestRefused(t *testing.T) {
	p, s, db := begun(t)
	exec(t, db, "INSERT INTO users (name) VALUES ('a')")
	const text = "use Begin, Commit and Rollback of GORM or database/sql"
	_, err := db.Exec("COMMIT")
	wantErr(t, err, text)
	wantErr(t, db.QueryRow("ROLLBACK").Err(), text)
	_, err = db.Prepare("COMMIT")
	wantErr(t, err, text)
	if n := count(t, db, "users"); n != 1 {
		t.Errorf("%d users", n)
	}
	end(t, p, s)
}
