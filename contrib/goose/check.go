package tenancygoose

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
)

// check returns the versions in ascending order, and an error if goose doesn't
// accept the migrations.
func check(sqlFiles files, goMigrations []*goose.Migration) ([]int64, error) {
	db := sql.OpenDB(nowhere{})
	defer db.Close() //nolint:errcheck // there is nothing behind it
	all, err := goose.NewProvider(goose.DialectCustom, db, sqlFiles, append(options(),
		goose.WithStore(blank{}), goose.WithGoMigrations(goMigrations...))...)
	if err != nil {
		return nil, fmt.Errorf("%w: correct Config.FS or Config.Go", err)
	}
	var versions []int64
	for _, s := range all.ListSources() { // in ascending order, it says
		versions = append(versions, s.Version)
	}
	if len(sqlFiles) == 0 {
		return versions, nil
	}

	// goose parses a file when it is about to be applied, all of those that
	// are pending before the first is applied (goose provider_run.go,
	// runMigrations). So it is asked to apply all to a database that has none
	// and refuses whatever comes after that. Its parser is not exported.
	onlySQL, err := goose.NewProvider(goose.DialectCustom, db, sqlFiles, append(options(), goose.WithStore(blank{}))...)
	if err != nil {
		return nil, err
	}
	if _, err := onlySQL.Up(context.Background()); !errors.Is(err, errParsed) {
		return nil, fmt.Errorf("%w: correct the file", err)
	}
	return versions, nil
}

// options are those of every provider. It prints nothing, and has no locker.
func options() []goose.ProviderOption {
	return []goose.ProviderOption{
		goose.WithDisableGlobalRegistry(true),
		goose.WithVerbose(false),
		goose.WithLogger(goose.NopLogger()),
	}
}

var errParsed = errors.New("all files were parsed")

// nowhere is a database that can be connected to, and no more.
type nowhere struct{}

func (nowhere) Connect(context.Context) (driver.Conn, error) { return nowhere{}, nil }
func (nowhere) Driver() driver.Driver                        { return nil }
func (nowhere) Prepare(string) (driver.Stmt, error)          { return nil, errParsed }
func (nowhere) Begin() (driver.Tx, error)                    { return nil, errParsed }
func (nowhere) Close() error                                 { return nil }

// blank is goose's notes of a database that has had no migration.
type blank struct{}

func (blank) Tablename() string { return goose.DefaultTablename }

func (blank) TableExists(context.Context, database.DBTxConn) (bool, error) { return true, nil }

func (blank) ListMigrations(context.Context, database.DBTxConn) ([]*database.ListMigrationsResult, error) {
	return []*database.ListMigrationsResult{{Version: 0, IsApplied: true}}, nil
}

func (blank) CreateVersionTable(context.Context, database.DBTxConn) error { return errParsed }

func (blank) Insert(context.Context, database.DBTxConn, database.InsertRequest) error {
	return errParsed
}

func (blank) Delete(context.Context, database.DBTxConn, int64) error { return errParsed }

func (blank) GetMigration(context.Context, database.DBTxConn, int64) (*database.GetMigrationResult, error) {
	return nil, errParsed
}

func (blank) GetLatestVersion(context.Context, database.DBTxConn) (int64, error) {
	return 0, errParsed
}
