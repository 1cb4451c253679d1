package enginetest

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"maps"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
)

const password = "clerk-password"

func dsn(p Place) string {
	return (&url.URL{
		Scheme: "postgres", User: url.UserPassword("clerk", p.Password),
		Host: p.Addr, Path: "/" + p.Database, RawQuery: "sslmode=disable",
	}).String()
}

// config is one that the sound engine passes with.
func config(t *testing.T) Config {
	t.Helper()
	pg := pgtest.Start(t, pgtest.HBA("host all clerk 127.0.0.1/32 scram-sha-256"))
	pg.Exec(t, "postgres", "CREATE ROLE clerk LOGIN PASSWORD '"+password+"'")
	return Config{
		Engine: sound,
		Create: func(tb testing.TB) string {
			name := pg.CreateDatabase(tb)
			pg.Exec(tb, "postgres", "ALTER DATABASE "+name+" OWNER TO clerk")
			return name
		},
		Open: func(tb testing.TB, name string) *sql.DB {
			cfg, err := pgx.ParseConfig(dsn(Place{Addr: pg.Addr(), Database: name, Password: password}))
			require.NoError(tb, err)
			return stdlib.OpenDB(*cfg)
		},
		DSN:       dsn,
		Dialector: func(db *sql.DB) gorm.Dialector { return postgres.New(postgres.Config{Conn: db}) },
		Bad:       []string{"postgres://u:" + Secret + "@h", "postgres://u:" + Secret + "@h:port/db"},
		Address:   pg.Addr(),
		Password:  password,
		Endless:   "SELECT pg_sleep(60)",
		Kill:      func(tb testing.TB, name string) { pg.EndSessions(tb, name) },
		Full:      func(tb testing.TB) string { return pgtest.StartFull(tb).DSN("postgres") },
		Patience:  5 * time.Second, // what a broken engine costs
	}
}

func find(t *testing.T, name string) check {
	t.Helper()
	for _, c := range checks {
		if c.name == name {
			return c
		}
	}
	t.Fatalf("there is no check %q", name)
	return check{}
}

// TestSoundEngine: no check fails without a reason.
func TestSoundEngine(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.Patience = 0 // the default
	for _, c := range checks {
		if said := record(t, func(tb testing.TB) { c.run(newSuite(tb, cfg)) }).failure(); said != "" {
			t.Errorf("%s: %s", c.name, said)
		}
	}
}

// TestBrokenEngines: every check fails for an engine that breaks its promise,
// and says so.
func TestBrokenEngines(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	var calls atomic.Int64
	type want struct{ check, says string }
	tested := map[string]bool{}
	for name, tt := range map[string]struct {
		engine tenancy.Engine
		want   []want
	}{
		"a password in an error":         {quoting(true), []want{{"ConnectorRefuses", "shows the DSN's password"}}},
		"a password in a wrapped error":  {quoting(false), []want{{"ConnectorRefuses", "shows the DSN's password"}}},
		"dials to parse":                 {dialling(), []want{{"ConnectorDoesNoIO", "connections were made before any Connect"}}},
		"a server name with a password":  {broken{server: func(dsn string) string { return dsn }}, []want{{"Server", "shows the password"}, {"ServerByAddress", "depends on the password"}}},
		"a server for each database":     {broken{server: func(dsn string) string { u, _ := url.Parse(dsn); return u.Host + u.Path }}, []want{{"Server", "two databases of one server"}}},
		"a server name that changes":     {broken{server: func(string) string { return time.Unix(calls.Add(1), 0).String() }}, []want{{"Server", "then"}}},
		"no server name":                 {broken{server: func(string) string { return "" }}, []want{{"Server", "is empty"}}},
		"one server name":                {broken{server: func(string) string { return "postgres" }}, []want{{"ServerByAddress", "on two ports"}}},
		"another dialect":                {broken{dialect: "mysql"}, []want{{"Dialect", `Dialect is "mysql"`}}},
		"always the first database":      {onlyFirst(), []want{{"ConnectorLeadsToItsDatabase", "leads to"}, {"Routes", "reads the row of"}}},
		"the database parsed last":       {latest(), []want{{"Together", "leads to"}}},
		"a caller is the server":         {classifies(tenancy.FaultCaller, tenancy.FaultServer), []want{{"ClassifyCaller", "want caller"}, {"ConnectEnds", "want caller"}, {"StatementEnds", "want caller"}}},
		"all is the server":              {broken{classify: func(err error) tenancy.Fault { return tenancy.FaultServer }}, []want{{"ClassifyCaller", "no error: Classify says server"}, {"ClassifyStatements", "a unique violation"}}},
		"a tenant is the server":         {classifies(tenancy.FaultTenant, tenancy.FaultServer), []want{{"ClassifyMissing", "want tenant"}, {"ClassifyPassword", "want tenant"}}},
		"a server is the tenant":         {classifies(tenancy.FaultServer, tenancy.FaultTenant), []want{{"ClassifyUnreachable", "want server"}, {"KilledSession", "want server or none"}}},
		"saturation is the server":       {classifies(tenancy.FaultSaturation, tenancy.FaultServer), []want{{"ClassifyFull", "want saturation"}}},
		"only errors that are unwrapped": {unwrapping(), []want{{"ClassifyMissing", "wrapped by fmt.Errorf"}}},
		"connects regardless of ctx": {connects(func(_ context.Context, sound tenancy.PermitConnector, permit tenancy.Permit) (driver.Conn, error) {
			return sound.ConnectPermit(context.Background(), permit)
		}), []want{{"ConnectEnds", "no error"}, {"ConnectEndsInSilence", "until Connect returns"}}},
		"a socket that stays":               {leaking(), []want{{"ConnectEndsInSilence", "socket of a connect that failed is closed"}}},
		"statements regardless of ctx":      {wrapped(func(c *conn) { c.patient = true }), []want{{"StatementEnds", "until a statement whose ctx has ended returns"}}},
		"a permit is given back at once":    {counted(func(_ *conn, p tenancy.Permit) { p.Release() }), []want{{"Permit", "released while its connection is open"}}},
		"a permit is given back by Close":   {counted(func(c *conn, p tenancy.Permit) { c.closed = p.Release }), []want{{"PermitOfCancelled", "socket is open"}}},
		"a permit is never given back":      {counted(func(*conn, tenancy.Permit) {}), []want{{"Permit", "in vain until the permit"}, {"PermitOfCancelled", "never released"}, {"PermitOfKilled", "in vain until the permit"}}},
		"the identity that is wanted":       {wrapped(func(c *conn) { c.identity = always(marks) }), []want{{"Identity", "another tenant's database was read"}, {"IdentityConn", "Identity is"}}},
		"no identity is found":              {wrapped(func(c *conn) { c.identity = always(tenancy.Identity{}) }), []want{{"Identity", "the right mark"}, {"IdentityConn", "Identity is"}}},
		"transactions that are none":        {wrapped(func(c *conn) { c.begin = func() (driver.Tx, error) { return noTx{}, nil } }), []want{{"Transactions", "has the rows"}}},
		"a replica that writes":             {broken{replica: sound.Connector}, []want{{"ReplicaRefusesWrites", "took INSERT"}}},
		"a replica's refusal is not known":  {broken{replicaRefused: func(error) bool { return false }}, []want{{"ReplicaRefusesWrites", "ReplicaRefused is false"}, {"ReplicaRefused", "want true"}}},
		"a replica refuses all":             {broken{replicaRefused: func(error) bool { return true }}, []want{{"ReplicaRefused", "ReplicaRefused(<nil>) is true"}}},
		"a replica without permits":         {broken{replica: plain}, []want{{"ReplicaIsLikeConnector", "ReplicaConnector's: false"}}},
		"a feature that nobody told of":     {engineOnly{sound}, []want{{"Features", "Replicates is not there"}}},
		"a refused DSN that is not":         {broken{connector: func(string) (driver.Connector, error) { return connector{}, nil }}, []want{{"ConnectorRefuses", "no error"}}},
		"a connector that needs its server": {dependent(), []want{{"ConnectorDoesNoIO", "does not answer"}}},
	} {
		for _, w := range tt.want {
			tested[w.check] = true
			t.Run(name+"/"+w.check, func(t *testing.T) {
				t.Parallel()
				cfg := cfg
				cfg.Engine = tt.engine
				said := record(t, func(tb testing.TB) { find(t, w.check).run(newSuite(tb, cfg)) }).failure()
				if !strings.Contains(said, w.says) {
					t.Errorf("it does not say %q, but: %s", w.says, said)
				}
			})
		}
	}
	for _, c := range checks {
		if !tested[c.name] {
			t.Errorf("no engine fails %s", c.name)
		}
	}
}

// TestLacks: what is left out is said, and nothing is left out unsaid.
func TestLacks(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	features := func(change func(*Config)) string {
		cfg := cfg
		cfg.Lacks = map[Feature]string{}
		change(&cfg)
		before := maps.Clone(cfg.Lacks)
		said := record(t, func(tb testing.TB) { find(t, "Features").run(newSuite(tb, cfg)) }).failure()
		require.Equal(t, before, cfg.Lacks, "Config is the caller's")
		return said
	}
	require.Empty(t, features(func(*Config) {}))
	require.Contains(t, features(func(c *Config) { c.Kill = nil }), "Kills is not there")
	require.Contains(t, features(func(c *Config) { c.Full = nil; c.Lacks[Saturates] = " " }), "no reason for Saturates")
	require.Contains(t, features(func(c *Config) { c.Lacks[Permits] = "why not" }), "Permits, but it is there")
	require.Contains(t, features(func(c *Config) { c.Lacks["Magic"] = "why not" }), `"Magic", which is no Feature`)
	require.Empty(t, features(func(c *Config) { c.Full = nil; c.Lacks[Saturates] = "it is endless" }))

	cfg.Lacks = map[Feature]string{Kills: "it can't be"}
	for name, lacks := range map[string]bool{"KilledSession": true, "PermitOfKilled": true, "Routes": false} {
		r := &recorder{TB: t}
		require.Equal(t, lacks, find(t, name).lacks(r, cfg), name)
		require.Equal(t, lacks, strings.Contains(strings.Join(r.logged, "\n"), "Kills: it can't be"), name)
	}
	require.Equal(t, []string{"Bad", "Create", "DSN", "Dialector", "Engine", "Open"}, Config{}.missing())
	require.Empty(t, cfg.missing())
}
