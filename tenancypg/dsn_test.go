package tenancypg

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// clearEnv takes away what pgx would read from the developer's environment.
func clearEnv(t testing.TB) {
	for _, k := range []string{
		"PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD", "PGSERVICE",
		"PGSERVICEFILE", "PGTZ", "PGCONNECT_TIMEOUT", "PGSSLMODE", "PGOPTIONS",
	} {
		t.Setenv(k, "")
	}
}

const secret = "hunter2hunter2"

// noSecret fails if err, or anything that it wraps, shows the secret.
func noSecret(t testing.TB, err error) {
	t.Helper()
	for e := err; e != nil; e = errors.Unwrap(e) {
		if s := fmt.Sprintf("%s|%+v|%#v", e, e, e); strings.Contains(s, secret) {
			t.Fatalf("the error shows the password: %s", s)
		}
	}
	var parseErr *pgconn.ParseConfigError
	if errors.As(err, &parseErr) {
		t.Fatal("pgx's ParseConfigError, which holds the whole DSN, can be reached")
	}
}

func TestBadDSNs(t *testing.T) {
	clearEnv(t)
	for dsn, want := range map[string]string{
		"":                                                                       "must name its database",
		"postgres://u:" + secret + "@h":                                          "must name its database",
		"postgres://u:" + secret + "@h/":                                         "must name its database",
		"postgres://u:" + secret + "@h/ ":                                        "must name its database",
		"host=h user=u password=" + secret:                                       "must name its database",
		"host=h dbname='' user=u password=" + secret:                             "must name its database",
		"postgres://u:" + secret + "@h:port/db":                                  "invalid port",
		"postgres://u:" + secret + "@h:99999/db":                                 "invalid port",
		"postgres://u:x@" + secret + ":y@h/db":                                   "invalid port",
		"postgres://u:" + secret + "/x@h/db":                                     "invalid port",
		"postgres://u:1/" + secret + "@h/db":                                     "percent-encoded",
		"postgres://u:x@" + secret + "@h/db":                                     "percent-encoded",
		"postgres://u:%zz" + secret + "@h/db":                                    "failed to parse as URL",
		"postgres://u:" + secret + "@[::1/db":                                    "failed to parse as URL",
		"postgres://u:" + secret + "@h/db?sslmode=" + secret:                     "failed to configure TLS",
		"postgres://u:" + secret + "@h/db?sslmode=verify-full&sslrootcert=/nope": "does not exist",
		"postgres://u:" + secret + "@h/db?connect_timeout=" + secret:             "invalid connect_timeout",
		"postgres://u@h/db?target_session_attrs=" + secret:                       "unknown target_session_attrs",
		"postgres://u@h/db?channel_binding=" + secret:                            "unknown channel_binding",
		"postgres://u@h/db?min_protocol_version=" + secret:                       "invalid min_protocol_version",
		"postgres://u@h/db?default_query_exec_mode=" + secret:                    "invalid default_query_exec_mode",
		"postgres://u@h/db?statement_cache_capacity=" + secret:                   "statement_cache_capacity",
		"postgres://u@h/db?TimeZone=" + secret:                                   "TimeZone is not known",
		"postgres://u@h/db?TimeZone=UTC&timezone=UTC":                            "more than once",
		"postgres://u@h/db?TimeZone=":                                            "TimeZone is empty",
		"postgres://h1:1,h2:2,h3:3/db?port=1,2&password=" + secret:               "could not match",
		"mysql://u:" + secret + "@h/db":                                          "failed to parse as keyword/value",
		"host=h dbname=db password='" + secret:                                   "failed to parse as keyword/value",
		"host=h dbname=db port=x password=" + secret:                             "invalid port",
		"host=h dbname=db password=my " + secret:                                 "failed to parse as keyword/value",
		"host=h dbname=db password=my " + secret + " host=h":                     "failed to parse as keyword/value",
		"service=" + secret + " servicefile=/nope":                               "failed to read service",
		"host=h dbname=a\x00b password=" + secret:                                "failed to parse as keyword/value",
		"host=h dbname=" + strings.Repeat("x", 64) + " password=" + secret:       "64 bytes",
		"`" + secret + "`: invalid port":                                         "failed to parse as keyword/value",
	} {
		_, err := Engine{}.Connector(dsn)
		if err == nil {
			t.Errorf("%q: no error", dsn)
			continue
		}
		if !strings.HasPrefix(err.Error(), "tenancypg: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %q does not say %q", dsn, err, want)
		}
		noSecret(t, err)
	}
}

func FuzzDSNErrorHidesSecret(f *testing.F) {
	clearEnv(f)
	for _, s := range [][2]string{
		{"postgres://u:", "@h:1/"}, {"postgres://u:", "/x@h:p/db"},
		{"host=h password=", " port=x"}, {"password='", ""}, {"`", "`: x"},
		{"postgres://u@h/db?sslrootcert=", ""}, {"service=", ""},
		{"postgres://h/db?TimeZone=", "&password=%"}, {"", "="},
	} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, before, after string) {
		c, err := Engine{}.Connector(before + secret + after)
		noSecret(t, err)
		if err == nil && c == nil {
			t.Fatal("neither a connector nor an error")
		}
	})
}

// The environment must never say which tenant's database is opened.
func TestDatabaseFromEnvironment(t *testing.T) {
	clearEnv(t)
	dir := t.TempDir()
	services := dir + "/services"
	writeFile(t, services, "[withdb]\nhost=h\ndbname=fromservice\n[nodb]\nhost=h\n")
	for _, tt := range []struct {
		dsn, env string
		ok       bool
	}{
		{"host=h", "", false},
		{"host=h", "PGDATABASE=other", false},
		{"postgres://h", "PGDATABASE=other", false},
		{"postgres://h/", "PGDATABASE=other", false},
		{"postgres://h?application_name=/x", "PGDATABASE=other", false},
		{"host=h application_name='dbname=x'", "PGDATABASE=other", false},
		{"host=h dbname=other", "PGDATABASE=other", true},
		{"host=h database=mine", "PGDATABASE=other", true},
		{"postgres://h/mine", "PGDATABASE=other", true},
		{"postgres://h?dbname=mine&ssl=true", "PGDATABASE=other", true},
		{"postgres://h/mine?statement_cache_capacity=32&search_path=x", "PGDATABASE=other", true},
		{"service=withdb servicefile=" + services, "", true},
		{"service=withdb servicefile=" + services, "PGDATABASE=other", true},
		{"service=nodb servicefile=" + services, "", false},
		{"service=nodb servicefile=" + services, "PGDATABASE=other", false},
		{"user=u servicefile=" + services, "PGSERVICE=withdb", false},
		{"dbname=mine servicefile=" + services, "PGSERVICE=withdb", true},
	} {
		t.Run(tt.dsn+" "+tt.env, func(t *testing.T) {
			if k, v, ok := strings.Cut(tt.env, "="); ok {
				t.Setenv(k, v)
			}
			_, err := Engine{}.Connector(tt.dsn)
			if got := err == nil; got != tt.ok {
				t.Errorf("accepted = %v, want %v (%v)", got, tt.ok, err)
			}
		})
	}
}

func TestConnectTimeout(t *testing.T) {
	clearEnv(t)
	const dsn = "postgres://u@h/db"
	for _, tt := range []struct {
		engine Engine
		dsn    string
		want   time.Duration
	}{
		{Engine{}, dsn, 5 * time.Second},
		{Engine{ConnectTimeout: time.Minute}, dsn, time.Minute},
		{Engine{ConnectTimeout: -1}, dsn, 0},
		{Engine{ConnectTimeout: time.Minute}, dsn + "?connect_timeout=3", 3 * time.Second},
		{Engine{}, dsn + "?connect_timeout=0", 0},
	} {
		cfg, _, err := tt.engine.parse(tt.dsn)
		if err != nil {
			t.Fatal(err)
		}
		if cfg.ConnectTimeout != tt.want {
			t.Errorf("%+v with %s: %v, want %v", tt.engine, tt.dsn, cfg.ConnectTimeout, tt.want)
		}
	}
}

func TestConfigure(t *testing.T) {
	clearEnv(t)
	calls := 0
	e := Engine{PreferSimpleProtocol: true, Configure: func(cfg *pgx.ConnConfig) error {
		calls++
		if cfg.DefaultQueryExecMode != pgx.QueryExecModeSimpleProtocol || cfg.ConnectTimeout == 0 {
			t.Error("Configure was called before the other fields were applied")
		}
		cfg.StatementCacheCapacity = 32
		return nil
	}}
	if _, err := e.Connector("postgres://h/db"); err != nil || calls != 1 {
		t.Fatalf("%d calls, %v", calls, err)
	}
	failure := errors.New("no")
	e.Configure = func(*pgx.ConnConfig) error { return failure }
	if _, err := e.Connector("postgres://h/db"); !errors.Is(err, failure) {
		t.Errorf("Configure's error is lost: %v", err)
	}
	e.Configure = func(cfg *pgx.ConnConfig) error { cfg.Database = ""; return nil }
	if _, err := e.Connector("postgres://h/db"); err == nil {
		t.Error("Configure could take the database away")
	}
}

func TestTimeZone(t *testing.T) {
	clearEnv(t)
	t.Setenv("PGTZ", "America/New_York")
	for dsn, want := range map[string]string{
		"host=h dbname=db":                           "",
		"host=h dbname=db TimeZone=Asia/Tokyo":       "Asia/Tokyo",
		"host=h dbname=db timezone='Asia/Tokyo'":     "Asia/Tokyo",
		"host=h dbname=db time_zone=Asia/Tokyo":      "Asia/Tokyo",
		"postgres://h/db?TimeZone=Asia/Tokyo&user=u": "Asia/Tokyo",
		"postgres://h/db?TimeZone=Asia%2FTokyo":      "Asia/Tokyo",
		"host=h dbname=db password='TimeZone=Mars'":  "",
	} {
		cfg, loc, err := Engine{}.parse(dsn)
		if err != nil {
			t.Errorf("%s: %v", dsn, err)
			continue
		}
		session := "America/New_York"
		if want != "" {
			session = want
		}
		if got := cfg.RuntimeParams["timezone"]; got != session {
			t.Errorf("%s: the session gets %q, want %q", dsn, got, session)
		}
		if (loc == nil) != (want == "") || loc != nil && loc.String() != want {
			t.Errorf("%s: location %v, want %q", dsn, loc, want)
		}
		for _, k := range []string{"TimeZone", "time_zone"} {
			if _, ok := cfg.RuntimeParams[k]; ok {
				t.Errorf("%s: %s is sent too", dsn, k)
			}
		}
	}
}

func TestServer(t *testing.T) {
	clearEnv(t)
	for dsn, want := range map[string]string{
		"postgres://u:" + secret + "@DB.Example.com/x":    "db.example.com:5432",
		"postgres://u@[::1]:6000/x":                       "[::1]:6000",
		"postgres://u@a:1,b:2/x":                          "a:1,b:2",
		"postgres://u@a,b/x?sslmode=prefer":               "a:5432,b:5432",
		"host=/Var/run dbname=x port=7":                   "/Var/run:7",
		"host=h sslmode=disable password=" + secret:       "h:5432",
		"postgres://u:" + secret + "@h:x/db":              "",
		"postgres://u:p@" + secret + "@h/db":              "",
		"postgres://u@h/db?connect_timeout=nonsense":      "",
		"postgres://u@H/db?sslmode=require&TimeZone=Mars": "h:5432",
	} {
		if got := (Engine{}).Server(dsn); got != want {
			t.Errorf("%s: %q, want %q", dsn, got, want)
		}
	}
}

func TestConnectorPrintsNoPassword(t *testing.T) {
	clearEnv(t)
	c, err := Engine{}.Connector("postgres://u:" + secret + "@h/db")
	if err != nil {
		t.Fatal(err)
	}
	holder := struct{ C any }{c}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		for _, v := range []any{c, holder} {
			got := fmt.Sprintf(format, v)
			if strings.Contains(got, secret) || !strings.Contains(got, "h:5432/db") {
				t.Errorf("%s prints %s", format, got)
			}
		}
	}
}
