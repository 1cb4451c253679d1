package tenancygormigrate_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/go-gormigrate/gormigrate/v2"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	tenancygormigrate "github.com/gorm-tenancy/tenancy/contrib/gormigrate"
	"github.com/gorm-tenancy/tenancy/internal/migratortest"
)

// Where the list and a database don't agree.

func TestNewerDatabase(t *testing.T) {
	migratortest.Each(t, func(t *testing.T, e migratortest.Engine) {
		db := e.Open(t)
		_, err := newMigrator(t, tenancygormigrate.Config{Dialector: dialector(e), Migrations: three()}).Up(t.Context(), db, 3)
		require.NoError(t, err)

		older := newMigrator(t, tenancygormigrate.Config{Dialector: dialector(e), Migrations: three()[:2]})
		require.EqualValues(t, 3, migratortest.Current(t, older, db), "what the newer program says")
		for _, to := range []int64{1, 2} {
			_, err = older.Up(t.Context(), db, to)
			require.ErrorIs(t, err, tenancygormigrate.ErrNewer)
			require.ErrorContains(t, err, `"first"`)
		}

		// Neither is older than the other, so there is no number for it.
		other := newMigrator(t, tenancygormigrate.Config{Dialector: dialector(e), Migrations: append(three()[:2], execs("other", "SELECT 1"))})
		_, err = other.Current(t.Context(), db)
		require.ErrorIs(t, err, tenancygormigrate.ErrNewer)
		_, err = other.Up(t.Context(), db, 3)
		require.ErrorIs(t, err, tenancygormigrate.ErrNewer)
	})
}

func TestAMigrationThatWasAddedBeforeOthers(t *testing.T) {
	migratortest.Each(t, func(t *testing.T, e migratortest.Engine) {
		db := e.Open(t)
		_, err := newMigrator(t, tenancygormigrate.Config{Dialector: dialector(e), Migrations: three()}).Up(t.Context(), db, 3)
		require.NoError(t, err)
		list := slices.Insert(three(), 1, execs("emails", "CREATE TABLE emails (id integer)"))

		strict := newMigrator(t, tenancygormigrate.Config{Dialector: dialector(e), Migrations: list})
		_, err = strict.Current(t.Context(), db)
		require.ErrorContains(t, err, `has not had "emails"`)
		require.ErrorContains(t, err, "AllowMissing")
		_, err = strict.Up(t.Context(), db, 4)
		require.ErrorContains(t, err, `has not had "emails"`)

		lenient := newMigrator(t, tenancygormigrate.Config{Dialector: dialector(e), Migrations: list, AllowMissing: true})
		require.EqualValues(t, 1, migratortest.Current(t, lenient, db), "at the target, nobody would call Up")
		applied, err := lenient.Up(t.Context(), db, 4)
		require.NoError(t, err)
		require.Equal(t, []int64{2}, migratortest.Versions(applied))
		require.EqualValues(t, 4, migratortest.Current(t, lenient, db))
		require.EqualValues(t, 4, migratortest.Current(t, strict, db))
	})
}

// gormigrate would begin anew in a schema that it doesn't see the table of.
func TestTableInAnotherSchema(t *testing.T) {
	migratortest.OnPostgres(t, func(t *testing.T, e migratortest.Engine) {
		db := e.Open(t)
		_, err := newMigrator(t, tenancygormigrate.Config{Dialector: dialector(e), Migrations: three()[:2]}).Up(t.Context(), db, 2)
		require.NoError(t, err)
		migratortest.Exec(t, db, "CREATE SCHEMA app")
		db.SetMaxOpenConns(1)
		migratortest.Exec(t, db, "SET search_path = app, public")
		_, err = newMigrator(t, tenancygormigrate.Config{Dialector: dialector(e), Migrations: three()}).Up(t.Context(), db, 3)
		require.ErrorContains(t, err, "set the search_path")
	})
}

func TestInitSchema(t *testing.T) {
	migratortest.Each(t, func(t *testing.T, e migratortest.Engine) {
		failure := errors.New("no owner")
		fail := true
		c := tenancygormigrate.Config{
			Dialector:  dialector(e),
			Migrations: three(),
			InitSchema: func(tx *gorm.DB) error {
				if err := tx.Exec("CREATE TABLE users (id integer, email text)").Error; err != nil || !fail {
					return err
				}
				return failure
			},
		}
		m := newMigrator(t, c)
		db := e.Open(t)
		_, err := m.Up(t.Context(), db, 2)
		require.ErrorContains(t, err, "to version 3, not 2")

		applied, err := m.Up(t.Context(), db, 3)
		require.ErrorIs(t, err, failure)
		require.Empty(t, applied)
		require.Zero(t, migratortest.Current(t, m, db))

		fail = false
		applied, err = m.Up(t.Context(), db, 3)
		require.NoError(t, err)
		require.Equal(t, []int64{3}, migratortest.Versions(applied))
		require.Equal(t, "SCHEMA_INIT", applied[0].Name)
		require.EqualValues(t, 3, migratortest.Current(t, m, db))
		require.Zero(t, migratortest.Count(t, db, "SELECT count(*) FROM users"), "the migrations themselves didn't run")

		c.Migrations = append(c.Migrations, execs("second", "INSERT INTO users VALUES (2, 'b@example.com')"))
		m = newMigrator(t, c)
		require.EqualValues(t, 3, migratortest.Current(t, m, db))
		applied, err = m.Up(t.Context(), db, 4)
		require.NoError(t, err)
		require.Equal(t, []int64{4}, migratortest.Versions(applied))
		require.Equal(t, 1, migratortest.Count(t, db, "SELECT count(*) FROM users"))

		// A database that had migrations one by one goes on so.
		old := e.Open(t)
		without := c
		without.InitSchema = nil
		_, err = newMigrator(t, without).Up(t.Context(), old, 2)
		require.NoError(t, err)
		applied, err = m.Up(t.Context(), old, 4)
		require.NoError(t, err)
		require.Equal(t, []int64{3, 4}, migratortest.Versions(applied))
	})
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		change func(*tenancygormigrate.Config)
		want   string
	}{
		"no dialector":  {func(c *tenancygormigrate.Config) { c.Dialector = nil }, "Config.Dialector is nil"},
		"no migrations": {func(c *tenancygormigrate.Config) { c.Migrations = nil }, "No migration defined"},
		"only InitSchema": {func(c *tenancygormigrate.Config) {
			c.Migrations, c.InitSchema = nil, func(*gorm.DB) error { return nil }
		}, "needs one, also if there is an InitSchema"},
		"nil":         {func(c *tenancygormigrate.Config) { c.Migrations[1] = nil }, "Config.Migrations[1] is nil"},
		"no ID":       {func(c *tenancygormigrate.Config) { c.Migrations[1].ID = "" }, "give Config.Migrations[1] one"},
		"reserved ID": {func(c *tenancygormigrate.Config) { c.Migrations[1].ID = "SCHEMA_INIT" }, "Reserved migration ID"},
		"twice":       {func(c *tenancygormigrate.Config) { c.Migrations[1].ID = "users" }, "Duplicated migration ID"},
		"long ID":     {func(c *tenancygormigrate.Config) { c.Migrations[1].ID = strings.Repeat("x", 256) }, "shorten it"},
		"short column": {func(c *tenancygormigrate.Config) {
			c.Options.IDColumnSize = 4
		}, `"users" is longer than the column, which has 4`},
		"no function":   {func(c *tenancygormigrate.Config) { c.Migrations[1].Migrate = nil }, `"email" has no Migrate`},
		"NoTransaction": {func(c *tenancygormigrate.Config) { c.NoTransaction = []string{"user"} }, `"user", which is no ID`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bad := config()
			c.change(&bad)
			m, err := tenancygormigrate.New(bad)
			require.ErrorContains(t, err, c.want)
			require.True(t, strings.HasPrefix(err.Error(), "tenancygormigrate: "), err)
			require.Nil(t, m)
		})
	}
}

func TestFingerprint(t *testing.T) {
	t.Parallel()
	fingerprint := func(change func(*tenancygormigrate.Config)) string {
		c := config()
		change(&c)
		_, f := newMigrator(t, c).Target()
		require.Regexp(t, "^gormigrate-[0-9a-f]{64}$", f)
		return f
	}
	seen := map[string]string{}
	for name, change := range map[string]func(*tenancygormigrate.Config){
		"as it is":      func(*tenancygormigrate.Config) {},
		"another ID":    func(c *tenancygormigrate.Config) { c.Migrations[0].ID = "user" },
		"another order": func(c *tenancygormigrate.Config) { slices.Reverse(c.Migrations) },
		"one less":      func(c *tenancygormigrate.Config) { c.Migrations = c.Migrations[:2] },
		"two in one":    func(c *tenancygormigrate.Config) { c.Migrations = append(c.Migrations[:1], execs("emailfirst", "")) },
		"InitSchema":    func(c *tenancygormigrate.Config) { c.InitSchema = func(*gorm.DB) error { return nil } },
		"revision":      func(c *tenancygormigrate.Config) { c.Revision = "2" },
		"table":         func(c *tenancygormigrate.Config) { c.Options.TableName = "m" },
		"column":        func(c *tenancygormigrate.Config) { c.Options.IDColumnName = "m" },
	} {
		f := fingerprint(change)
		require.Empty(t, seen[f], "%s has the fingerprint of", name)
		seen[f] = name
	}
	require.Equal(t, "as it is", seen[fingerprint(func(c *tenancygormigrate.Config) {
		c.Options = *gormigrate.DefaultOptions
		c.NoTransaction = []string{"email"}
		c.AllowMissing = true
	})], "the schema is the same")
}
