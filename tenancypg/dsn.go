package tenancypg

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// maxName is the longest database name in bytes, NAMEDATALEN-1. The server
// truncates a longer one in the startup packet (PostgreSQL's
// src/backend/postmaster/postmaster.c, ProcessStartupPacket), and so would
// open the database whose name is the shorter one.
const maxName = 63

// parse turns dsn into pgx's configuration. loc is nil when the DSN names no
// time zone.
func (e Engine) parse(dsn string) (cfg *pgx.ConnConfig, loc *time.Location, err error) {
	if cfg, err = parseConfig(dsn); err != nil {
		return nil, nil, err
	}
	if err := checkSource(cfg, dsn); err != nil {
		return nil, nil, err
	}
	if loc, err = e.apply(cfg, dsn); err != nil {
		return nil, nil, err
	}
	return cfg, loc, nil
}

// apply applies the engine's fields to cfg, which was parsed from dsn.
func (e Engine) apply(cfg *pgx.ConnConfig, dsn string) (loc *time.Location, err error) {
	if loc, err = timeZone(cfg, dsn); err != nil {
		return nil, err
	}
	if e.PreferSimpleProtocol {
		cfg.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	}
	if cfg.ConnectTimeout == 0 && e.ConnectTimeout >= 0 && !sets(cfg, dsn, "connect_timeout") {
		cfg.ConnectTimeout = defaultConnectTimeout
		if e.ConnectTimeout > 0 {
			cfg.ConnectTimeout = e.ConnectTimeout
		}
	}
	if e.Configure != nil {
		if err := e.Configure(cfg); err != nil {
			return nil, fmt.Errorf("tenancypg: configure: %w", err)
		}
	}
	// Last, so that Configure can't get around it.
	if err := checkName(cfg.Database); err != nil {
		return nil, err
	}
	return loc, nil
}

// parseConfig is pgx.ParseConfig with errors that are safe to show, and
// refuses what is certainly a password that was not percent-encoded.
func parseConfig(dsn string) (*pgx.ConnConfig, error) {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, parseError(err)
	}
	// In postgres://u:p@ss@host/db the host is "ss@host", and in
	// postgres://u:1/23@host/db the database is "23@host/db". Both would go
	// into logs as such, and the connection to the wrong machine.
	hosts := []string{cfg.Host}
	for _, f := range cfg.Fallbacks {
		hosts = append(hosts, f.Host)
	}
	for _, h := range hosts {
		if !isSocketDir(h) && strings.Contains(h, "@") {
			return nil, errEncoding
		}
	}
	if strings.Contains(dsn, "://") && strings.ContainsAny(cfg.Database, "@/") &&
		strings.Contains(dsn, "/"+cfg.Database) {
		return nil, errEncoding
	}
	return cfg, nil
}

var (
	errEncoding = errors.New("tenancypg: the DSN's user name or password holds a character that must be percent-encoded")
	errNoName   = errors.New("tenancypg: the DSN must name its database; PGDATABASE and the user's name don't count")
)

// parseReasons are the messages of pgconn.ParseConfigError that we pass on;
// all are constants of pgx's pgconn/config.go and conn.go.
var parseReasons = []string{
	"failed to parse as URL",
	"failed to parse as keyword/value",
	"failed to read service",
	"failed to configure TLS",
	"invalid port",
	"could not match",
	"invalid connect_timeout",
	"invalid sslcertmode",
	"invalid require_auth",
	"unknown target_session_attrs value",
	"unknown channel_binding value",
	"invalid min_protocol_version",
	"invalid max_protocol_version",
	"min_protocol_version cannot be greater than max_protocol_version",
	"cannot parse statement_cache_capacity",
	"cannot parse description_cache_capacity",
	"invalid default_query_exec_mode",
}

// parseError says why pgx could not parse a DSN, in words that are all ours.
// pgx masks passwords by best effort only (pgconn/errors.go, redactPW), its
// error holds the whole DSN in a public field, and the bytes of a malformed
// one can stand anywhere in the text. So its error is not wrapped either.
func parseError(err error) error {
	var reason, missing string
	// What precedes the last backquote is the DSN.
	msg := err.Error()
	if i := strings.LastIndexByte(msg, '`'); i >= 0 {
		msg = strings.TrimPrefix(msg[i+1:], ": ")
	}
	for _, r := range parseReasons {
		if strings.HasPrefix(msg, r) {
			reason = ": " + strings.TrimSuffix(r, " value")
			break
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		missing = " (a file that it names does not exist)"
	}
	return fmt.Errorf("tenancypg: the DSN can't be parsed%s%s", reason, missing)
}

// checkSource makes sure that the database's name comes from the DSN, or from
// the service that the DSN asks for, and not from this process's environment.
func checkSource(cfg *pgx.ConnConfig, dsn string) error {
	if cfg.Database == "" {
		return errNoName
	}
	if sets(cfg, dsn, "database") {
		return nil
	}
	// A service without a dbname lets PGDATABASE through.
	if sets(cfg, dsn, "service") && cfg.Database != os.Getenv("PGDATABASE") {
		return nil
	}
	return errNoName
}

// checkConfig is checkSource for a configuration that the application made:
// it may have set the database's name itself.
func checkConfig(cfg *pgx.ConnConfig) error {
	if cfg == nil {
		return errors.New("tenancypg: the *pgx.ConnConfig is nil")
	}
	// pgx panics in the first dial on one that it did not make. What tells it
	// apart is private, but none of these is ever left empty by its parser.
	if cfg.DialFunc == nil || cfg.LookupFunc == nil || cfg.BuildFrontend == nil || cfg.DefaultQueryExecMode == 0 {
		return errors.New("tenancypg: the *pgx.ConnConfig must come from pgx.ParseConfig")
	}
	if env := os.Getenv("PGDATABASE"); env != "" && cfg.Database == env && !sets(cfg, cfg.ConnString(), "database") {
		return errNoName
	}
	return nil
}

func checkName(name string) error {
	switch {
	case name == "":
		return errNoName
	case len(name) > maxName:
		return fmt.Errorf("tenancypg: the DSN's database name has %d bytes: over %d the server would open the database of the shortened name", len(name), maxName)
	case strings.IndexByte(name, 0) >= 0:
		return errors.New("tenancypg: the DSN's database name holds a NUL byte")
	}
	return nil
}

// connKeys are the keys that pgx takes out of a DSN for itself; every other
// key becomes a RuntimeParam (pgconn/config.go, notRuntimeParams; pgx's
// conn.go, ParseConfigWithOptions).
var connKeys = []string{
	"host", "port", "database", "user", "password", "passfile",
	"connect_timeout", "ssl", "sslmode", "sslkey", "sslcert", "sslcertmode",
	"sslrootcert", "sslnegotiation", "sslpassword", "sslsni", "krbspn",
	"krbsrvname", "target_session_attrs", "service", "servicefile",
	"min_protocol_version", "max_protocol_version", "channel_binding",
	"require_auth", "statement_cache_capacity", "description_cache_capacity",
	"default_query_exec_mode",
}

// sets reports whether dsn itself sets key, rather than the environment, a
// service file or a default. It asks pgx's own parser, so that there is no
// second grammar to disagree with: a DSN is parsed again with every key but
// this one allowed. What can't be told counts as not set.
func sets(cfg *pgx.ConnConfig, dsn, key string) bool {
	allowed := slices.Concat(connKeys, slices.Collect(maps.Keys(cfg.RuntimeParams)))
	allowed = slices.DeleteFunc(allowed, func(k string) bool { return k == key })
	_, err := pgconn.ParseConfigWithOptions(dsn, pgconn.ParseConfigOptions{ConnStringAllowedKeys: allowed})
	return err != nil && strings.HasSuffix(err.Error(), fmt.Sprintf("connection string key %q is not in ConnStringAllowedKeys", key))
}

// timeZone does for a DSN's time zone what gorm.io/driver/postgres does in
// postgres.go, Dialector.Initialize: it becomes the session's "timezone", and
// the location of values of the type "timestamp", which have none themselves.
// PGTZ sets the former only, there too.
//
// The driver finds the zone with a regular expression over the whole DSN; here
// it is the value that pgx parsed, so a quoted or percent-encoded one works.
func timeZone(cfg *pgx.ConnConfig, dsn string) (*time.Location, error) {
	var keys []string
	for _, key := range []string{"TimeZone", "timezone", "time_zone"} {
		if _, ok := cfg.RuntimeParams[key]; ok && sets(cfg, dsn, key) {
			keys = append(keys, key)
		}
	}
	switch len(keys) {
	case 0:
		return nil, nil
	case 1:
	default:
		return nil, errors.New("tenancypg: the DSN names its time zone more than once")
	}
	zone := cfg.RuntimeParams[keys[0]]
	if zone == "" {
		return nil, errors.New("tenancypg: the DSN's TimeZone is empty")
	}
	loc, err := time.LoadLocation(zone)
	if err != nil {
		// Its text holds the value, which is a part of the DSN.
		return nil, errors.New("tenancypg: the DSN's TimeZone is not known to this process's time zone database")
	}
	// The server knows the parameter by one name and takes names regardless of
	// case: sent twice, with PGTZ's value say, chance would decide.
	delete(cfg.RuntimeParams, keys[0])
	cfg.RuntimeParams["timezone"] = zone
	return loc, nil
}

// isSocketDir reports whether host is a directory of Unix sockets, by the rule
// of pgx's pgconn.NetworkAddress.
func isSocketDir(host string) bool {
	network, _ := pgconn.NetworkAddress(host, 0)
	return network == "unix"
}
