package tenancygoose_test

import (
	"errors"
	"testing"

	"github.com/pressly/goose/v3"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	tenancygoose "github.com/gorm-tenancy/tenancy/contrib/goose"
	"github.com/gorm-tenancy/tenancy/internal/migratortest"
	"github.com/gorm-tenancy/tenancy/migrate"
)

type invoice struct {
	ID     uint
	Number string `gorm:"uniqueIndex"`
}

// Models, rows and goose's version are one transaction.
func TestGORM(t *testing.T) {
	migratortest.Each(t, func(t *testing.T, e migratortest.Engine) {
		failure := errors.New("no number")
		fail := true
		m := newMigrator(t, tenancygoose.Config{Dialect: dialect(e), FS: three(), Go: []*goose.Migration{
			tenancygoose.GORM(4, "invoices", inTx(e), func(tx *gorm.DB) error {
				if err := tx.AutoMigrate(&invoice{}); err != nil {
					return err
				}
				if err := tx.Create(&invoice{Number: "1"}).Error; err != nil {
					return err
				}
				// A transaction within is a savepoint.
				err := tx.Transaction(func(tx *gorm.DB) error {
					if err := tx.Create(&invoice{Number: "2"}).Error; err != nil {
						return err
					}
					return failure
				})
				if err != failure {
					return err
				}
				if fail {
					return failure
				}
				return nil
			}),
		}})
		db := e.Open(t)
		applied, err := m.Up(t.Context(), db, 4)
		require.ErrorIs(t, err, failure)
		var failed *migrate.FailedError
		require.ErrorAs(t, err, &failed)
		require.Equal(t, "00004_invoices.go", failed.Name)
		require.Len(t, applied, 3)
		require.EqualValues(t, 3, migratortest.Current(t, m, db))
		_, err = db.Exec("SELECT count(*) FROM invoices")
		require.Error(t, err, "the table is gone with the transaction")

		fail = false
		applied, err = m.Up(t.Context(), db, 4)
		require.NoError(t, err)
		require.Equal(t, []int64{4}, migratortest.Versions(applied))
		require.EqualValues(t, 4, migratortest.Current(t, m, db))
		require.Equal(t, 1, migratortest.Count(t, db, "SELECT count(*) FROM invoices"))
	})
}

// What the function forgets to look at must not be noted as done.
func TestGORMErrorThatIsForgotten(t *testing.T) {
	// Only PostgreSQL ends a transaction in which a statement failed.
	migratortest.OnPostgres(t, func(t *testing.T, e migratortest.Engine) {
		m := newMigrator(t, tenancygoose.Config{Dialect: dialect(e), Go: []*goose.Migration{
			tenancygoose.GORM(1, "forgets", inTx(e), func(tx *gorm.DB) error {
				tx.Exec("INSERT INTO nowhere VALUES (1)")
				return nil
			}),
		}})
		db := e.Open(t)
		_, err := m.Up(t.Context(), db, 1)
		require.Error(t, err)
		require.Zero(t, migratortest.Current(t, m, db))
	})
}

func TestGORMName(t *testing.T) {
	t.Parallel()
	_, err := tenancygoose.New(tenancygoose.Config{Dialect: goose.DialectPostgres, Go: []*goose.Migration{
		tenancygoose.GORM(1, "a/b", nil, nil),
	}})
	require.ErrorContains(t, err, "invalid source")
}
