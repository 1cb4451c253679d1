package tenancygoose_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/pressly/goose/v3"
	"github.com/stretchr/testify/require"

	tenancygoose "github.com/gorm-tenancy/tenancy/contrib/goose"
)

func nothing(context.Context, *sql.Tx) error { return nil }

func goMigration(version int64) *goose.Migration {
	return goose.NewGoMigration(version, &goose.GoFunc{RunTx: nothing}, nil)
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	raw := func(name, content string) fstest.MapFS { return fstest.MapFS{name: {Data: []byte(content)}} }
	with := func(fsys fstest.MapFS) tenancygoose.Config {
		return tenancygoose.Config{Dialect: goose.DialectSQLite3, FS: fsys}
	}
	wrong := goMigration(1)
	wrong.Source = "00002_x.go"
	for name, c := range map[string]struct {
		config tenancygoose.Config
		want   string
	}{
		"no dialect":        {tenancygoose.Config{FS: three()}, "use goose.DialectPostgres or goose.DialectSQLite3"},
		"another dialect":   {tenancygoose.Config{Dialect: goose.DialectMySQL, FS: three()}, "use goose.DialectPostgres"},
		"nothing":           {tenancygoose.Config{Dialect: goose.DialectPostgres}, "set Config.FS, Config.Go, or both"},
		"table in quotes":   {tenancygoose.Config{Dialect: goose.DialectSQLite3, FS: three(), Table: `a"b`}, "lower-case letters"},
		"table in capitals": {tenancygoose.Config{Dialect: goose.DialectPostgres, FS: three(), Table: "Versions"}, "lower-case letters"},
		"nil":               {tenancygoose.Config{Dialect: goose.DialectPostgres, Go: []*goose.Migration{nil}}, "Config.Go[0] is nil"},
		"not made by goose": {tenancygoose.Config{Dialect: goose.DialectPostgres, Go: []*goose.Migration{{Version: 1}}}, "NewGoMigration"},
		"version 0 in Go":   {tenancygoose.Config{Dialect: goose.DialectPostgres, Go: []*goose.Migration{goMigration(0)}}, "greater than zero"},
		"twice in Go":       {tenancygoose.Config{Dialect: goose.DialectPostgres, Go: []*goose.Migration{goMigration(1), goMigration(1)}}, "already registered"},
		"wrong source":      {tenancygoose.Config{Dialect: goose.DialectPostgres, Go: []*goose.Migration{wrong}}, "does not match"},
		"SQL and Go":        {tenancygoose.Config{Dialect: goose.DialectSQLite3, FS: three(), Go: []*goose.Migration{goMigration(2)}}, "duplicate migration version 2"},
		"in a directory":    {with(fstest.MapFS{"migrations/00001_a.sql": {}}), "use fs.Sub"},
		"empty":             {with(fstest.MapFS{}), "use fs.Sub"},
		"only other files":  {with(raw("schema.sql", "")), "no migration at its root"},
		"version 0":         {with(raw("00000_a.sql", "")), "name it like 00001_users.sql"},
		"negative":          {with(raw("-1_a.sql", "")), "name it like 00001_users.sql"},
		"dash":              {with(raw("00001-a.sql", "")), "name it like 00001_users.sql"},
		"capitals":          {with(raw("00001_a.SQL", "")), "name it like 00001_users.sql"},
		"version too great": {with(raw("99999999999999999999_a.sql", "")), "name it like 00001_users.sql"},
		"twice":             {with(sqlFiles("00001_a.sql", "SELECT 1", "1_b.sql", "SELECT 1")), "duplicate migration version 1"},
		"Go not registered": {with(fstest.MapFS{"00001_a.go": {}}), "no migration 1 is in Config.Go"},
		"no annotation":     {with(raw("00001_a.sql", "SELECT 1;")), "00001_a.sql"},
		"empty file":        {with(raw("00001_a.sql", "")), "must start with '-- +goose Up'"},
		"no semicolon":      {with(raw("00001_a.sql", "-- +goose Up\nSELECT 1")), "missing semicolon"},
		"no end":            {with(raw("00001_a.sql", "-- +goose Up\n-- +goose StatementBegin\nSELECT 1;")), "StatementEnd"},
		"bad Down":          {with(raw("00001_a.sql", "-- +goose Up\nSELECT 1;\n-- +goose Down\nSELECT 1")), "missing semicolon"},
		"unknown word":      {with(raw("00001_a.sql", "-- +goose Upp\nSELECT 1;")), "00001_a.sql"},
		"missing directory": {tenancygoose.Config{Dialect: goose.DialectSQLite3, FS: os.DirFS("testdata/none")}, "reading Config.FS"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, err := tenancygoose.New(c.config)
			require.ErrorContains(t, err, c.want)
			require.True(t, strings.HasPrefix(err.Error(), "tenancygoose: "), err)
			require.Nil(t, m)
		})
	}
}

// The last file is looked at too, whatever the ones before it are like.
func TestNewParsesEveryFile(t *testing.T) {
	t.Parallel()
	for _, first := range []string{
		"-- +goose Up\nSELECT 1;\n",
		"-- +goose NO TRANSACTION\n-- +goose Up\nSELECT 1;\n",
		"-- +goose NO TRANSACTION\n-- +goose Up\n",
		"-- +goose Up\n",
	} {
		fsys := fstest.MapFS{"1_a.sql": {Data: []byte(first)}}
		_, err := tenancygoose.New(tenancygoose.Config{Dialect: goose.DialectPostgres, FS: fsys})
		require.NoError(t, err)
		fsys["2_b.sql"] = &fstest.MapFile{Data: []byte("-- +goose Up\nSELECT 1")}
		_, err = tenancygoose.New(tenancygoose.Config{Dialect: goose.DialectPostgres, FS: fsys})
		require.ErrorContains(t, err, "2_b.sql")
	}
}

func TestNewLeavesOtherFilesAlone(t *testing.T) {
	t.Parallel()
	fsys := three()
	for _, name := range []string{"schema.sql", "README.md", "embed.go", "00009_x_test.go", "old/00001_a.sql", "00001_notes.txt"} {
		fsys[name] = &fstest.MapFile{Data: []byte("anything")}
	}
	m := newMigrator(t, tenancygoose.Config{Dialect: goose.DialectPostgres, FS: fsys})
	_, got := m.Target()
	_, want := newMigrator(t, tenancygoose.Config{Dialect: goose.DialectPostgres, FS: three()}).Target()
	require.Equal(t, want, got)
}

// goose has no checksums.
func TestTrapNoChecksums(t *testing.T) {
	t.Parallel()
	fingerprint := func(c tenancygoose.Config) string {
		c.Dialect = goose.DialectPostgres
		_, f := newMigrator(t, c).Target()
		require.Regexp(t, regexp.MustCompile("^goose-[0-9a-f]{64}$"), f)
		return f
	}
	changed := func(change func(fstest.MapFS)) fstest.MapFS {
		fsys := three()
		change(fsys)
		return fsys
	}
	named := goMigration(4)
	named.Source = "00004_x.go"
	seen := map[string]string{}
	for name, c := range map[string]tenancygoose.Config{
		"as it is": {FS: three()},
		"another statement": {FS: changed(func(f fstest.MapFS) {
			f["00002_email.sql"].Data = append(f["00002_email.sql"].Data, "SELECT 1;\n"...)
		})},
		"another name": {FS: changed(func(f fstest.MapFS) {
			f["00002_mail.sql"] = f["00002_email.sql"]
			delete(f, "00002_email.sql")
		})},
		"one less":         {FS: changed(func(f fstest.MapFS) { delete(f, "00003_first.sql") })},
		"Go":               {FS: three(), Go: []*goose.Migration{goMigration(4)}},
		"another version":  {FS: three(), Go: []*goose.Migration{goMigration(5)}},
		"a Go name":        {FS: three(), Go: []*goose.Migration{named}},
		"only Go":          {Go: []*goose.Migration{goMigration(4)}},
		"another revision": {FS: three(), Revision: "2"},
		"another table":    {FS: three(), Table: "versions"},
	} {
		f := fingerprint(c)
		require.Empty(t, seen[f], "%s has the fingerprint of", name)
		seen[f] = name
	}

	same := fingerprint(tenancygoose.Config{FS: three()})
	require.Equal(t, "as it is", seen[same])
	require.Equal(t, same, fingerprint(tenancygoose.Config{FS: three(), AllowMissing: true}), "the schema is the same")
	windows := changed(func(f fstest.MapFS) {
		for _, file := range f {
			file.Data = bytes.ReplaceAll(file.Data, []byte("\n"), []byte("\r\n"))
		}
	})
	require.Equal(t, same, fingerprint(tenancygoose.Config{FS: windows}))
	require.Equal(t,
		fingerprint(tenancygoose.Config{Go: []*goose.Migration{goMigration(4), goMigration(5)}}),
		fingerprint(tenancygoose.Config{Go: []*goose.Migration{goMigration(5), goMigration(4)}}))
}

// New runs nothing: neither functions nor statements.
func TestNewRunsNothing(t *testing.T) {
	t.Parallel()
	_, err := tenancygoose.New(tenancygoose.Config{
		Dialect: goose.DialectSQLite3,
		FS:      three(),
		Go: []*goose.Migration{goose.NewGoMigration(4, &goose.GoFunc{RunTx: func(context.Context, *sql.Tx) error {
			t.Error("it ran")
			return errors.New("it ran")
		}}, nil)},
	})
	require.NoError(t, err)
}
