package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPrecedence(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	for _, name := range []string{"file", "env", "flag"} {
		p.write(t, name+"/keep", "")
		p.write(t, name+".yaml", "main: sqlite:"+name+"/main.db\nservers: {s1: {dir: "+name+"}}\nmigrations: {tenants: migrations/tenants}\n")
	}
	where := func(args ...string) string {
		t.Helper()
		p.ok(t, append([]string{"migrate"}, args...)...)
		p.ok(t, append([]string{"create", "acme"}, args...)...)
		for _, name := range []string{"file", "env", "flag"} {
			plain := &place{dir: p.dir}
			if strings.Contains(plain.run(t, "list", "--config", name+".yaml").out, "acme") {
				plain.ok(t, "remove", "acme", "--force", "--config", name+".yaml")
				return name
			}
		}
		return "nowhere"
	}
	require.Equal(t, "file", where("--config", "file.yaml"))
	p.env = []string{"TENANCY_CONFIG=file.yaml"}
	require.Equal(t, "file", where())
	p.env = []string{"TENANCY_CONFIG=file.yaml", "TENANCY_MAIN=sqlite:env/main.db", "TENANCY_SERVERS_S1_DIR=env"}
	require.Equal(t, "env", where())
	require.Equal(t, "flag", where("--main", "sqlite:flag/main.db", "--dir", "s1=flag"))

	p.env = []string{"TENANCY_CONFIG=nothing.yaml"}
	p.fails(t, 1, "nothing.yaml: no such file", "list")
	p.env = nil
	p.dir = t.TempDir()
	p.fails(t, 1, "the main database is not configured; set main in tenancy.yaml or the variable TENANCY_MAIN", "list")
	p.fails(t, 1, "no server is configured", "list", "--main", "sqlite:main.db")
}

func TestBadConfiguration(t *testing.T) {
	t.Parallel()
	for text, say := range map[string]string{
		"main: sqlite:main.db\nsevers: {}\n":                                            `tenancy.yaml:2: unknown key "severs" in the file; it has main, servers,`,
		"main: sqlite:main.db\nservers:\n  s1:\n    dri: s1\n":                          `tenancy.yaml:4: unknown key "dri" in servers.s1; it has app, admin, bin_dir, dir, settings`,
		"main: x\nmain: secret\n":                                                       `tenancy.yaml:2: the key "main" is there twice`,
		"main: [secret]\n":                                                              "tenancy.yaml:1: main must be one value",
		"servers: postgres://app:secret@localhost/\n":                                   "tenancy.yaml:1: servers must have keys below it",
		"main: *secret\n":                                                               "is no YAML; quote values that begin with a special character",
		"main: \"secret\nservers: {}\n":                                                 "tenancy.yaml:",
		"main: sqlite:${NOT_THERE}\n":                                                   "tenancy.yaml:1: main: the environment has no NOT_THERE",
		"main: sqlite:${NOT_THERE\n":                                                    "tenancy.yaml:1: main has a ${ without a }",
		"main: sqlite:m.db\nservers: {s1: {dir: s1}}\nready: secret\n":                  "tenancy.yaml:3: ready is no number",
		"main: sqlite:m.db\nservers: {s1: {dir: s1}}\nlease: secret\n":                  "tenancy.yaml:3: lease is no duration like 30s or 5m",
		"main: sqlite:m.db\nservers: {s1: {app: secret}}\n":                             "server s1 has no dir, and the main database is on SQLite",
		"main: sqlite:m.db\nservers: {s1: {dir: s1, app: secret}}\n":                    "server s1 has a dir, which is SQLite's, and a DSN",
		"main: secret\nservers: {s1: {dir: s1}}\n":                                      "they must be of one kind",
		"main: postgres://h/d\nservers: {s1: {admin: secret}}\n":                        "server s1 has no app, the DSN of the application",
		"main: secret\nservers: {s1: {app: secret}}\n":                                  "the main database: ",
		"main: sqlite:m.db\nservers: {s1: {dir: s1}}\nmigrations: {tenants: nowhere}\n": "migrations.tenants, nowhere: ",
	} {
		p := &place{dir: t.TempDir()}
		p.write(t, "tenancy.yaml", text)
		o := p.fails(t, 1, say, "list")
		require.NotContains(t, o.err, "secret", text)
	}
}

// What is in a variable is no YAML.
func TestExpansion(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.write(t, "tenancy.yaml", strings.Replace(sqliteConfig, "sqlite:main.db", "sqlite:${NAME}$$.db", 1))
	p.env = []string{"NAME=a: b # [c"}
	p.ok(t, "migrate")
	require.FileExists(t, p.dir+"/a: b # [c$$.db")
}

// No place for a password in an error: of main, of a server's two DSNs, in each
// of the forms, well-formed or not.
func TestNoPassword(t *testing.T) {
	t.Parallel()
	const secret = "hunter2"
	const nobody = "127.0.0.1:1" // refuses
	for _, dsn := range []string{
		"postgres://app:" + secret + "@" + nobody + "/main?connect_timeout=1",
		"host=127.0.0.1 port=1 user=app password=" + secret + " dbname=main",
		"host=127.0.0.1 port=1 user=app password='" + secret + " dbname=main",
		"postgres://app:" + secret + "@" + nobody + "/main?sslmode=bogus",
		"postgres://app:" + secret + "@[::1/main",
		"postgres://app:" + secret + "%zz@" + nobody + "/main",
		"postgres://" + secret + "@" + nobody + ":x/main",
		secret,
	} {
		p := &place{dir: t.TempDir(), env: []string{"DSN=" + dsn}}
		p.write(t, "tenancy.yaml", "main: ${DSN}\nservers: {s1: {app: \"${DSN}\", admin: \"${DSN}\"}}\n")
		p.write(t, "one.yaml", "main: postgres://"+nobody+"/main\nservers: {s1: {app: \"${DSN}\", admin: \"${DSN}\"}}\n")
		for _, args := range [][]string{
			{"list"}, {"migrate"}, {"doctor", "--json"}, {"doctor", "--config", "one.yaml"}, {"list", "--main", dsn},
		} {
			o := p.run(t, args...)
			require.NotZero(t, o.code, "%s %v", dsn, args)
			require.NotContains(t, o.out+o.err, secret, "%s %v", dsn, args)
			require.NotEmpty(t, o.out+o.err)
		}
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.fails(t, 1, `unknown command "creat" for "tenancy"; did you mean create?`, "creat")
	p.fails(t, 1, "create wants ID, and got 0 arguments; see tenancy create --help", "create")
	p.fails(t, 1, "unknown flag: --lable; see tenancy create --help", "create", "acme", "--lable", "x")
	require.Contains(t, p.ok(t), "Usage:\n  tenancy [flags]\n  tenancy [command]")
	require.Contains(t, p.ok(t, "help", "exec"), "Runs one SQL statement")
	require.Contains(t, p.ok(t, "version"), "tenancy ")
	require.Contains(t, p.ok(t, "version", "--json"), `"name": "tenancy"`)
	require.Contains(t, p.ok(t, "completion", "bash"), "bash completion V2 for tenancy")
	require.Contains(t, p.ok(t, "completion", "zsh"), "#compdef tenancy")
	require.Contains(t, p.ok(t, "__complete", "mig"), "migrate\tbring the main database")
}

func TestDoctor(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	require.Contains(t, p.fails(t, 2, "", "doctor").out, "FAIL  catalog: its tables are missing or out of date; run `tenancy migrate`\n")
	p.with(t, "acme")
	require.Equal(t, `ok    main database: it answers
ok    catalog: its tables are there
ok    server s1: its administrator reaches it; 1 tenant, 0 ready
ok    templates: none is of earlier migrations
ok    migrations: all tenants are at version 1
ok    unfinished work: none
ok    application on s1, tenant acme: it reads
`, p.ok(t, "doctor"))
	p.addMigration(t, 2, "ALTER TABLE orders ADD COLUMN note text;")
	out := p.ok(t, "doctor")
	require.Contains(t, out, "warn  migrations: 1 tenant is behind version 2; run `tenancy migrate`\n")
	require.Contains(t, out, "warn  templates: 1 is of earlier migrations")
	require.Contains(t, p.ok(t, "doctor", "--json"), `"result": "warn"`)
}
