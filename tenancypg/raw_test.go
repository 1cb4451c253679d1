package tenancypg

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// other is a driver that is not pgx.
type other struct{ driver.Conn }

func (o other) Connect(context.Context) (driver.Conn, error) { return o, nil }
func (other) Driver() driver.Driver                          { return nil }
func (other) Close() error                                   { return nil }

func TestRawOnAnotherDriver(t *testing.T) {
	db := sql.OpenDB(other{})
	defer db.Close()
	c, err := db.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	err = Raw(c, func(*pgx.Conn) error {
		t.Error("fn was called")
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "tenancypg.other") {
		t.Errorf("the error does not name the driver: %v", err)
	}
}
