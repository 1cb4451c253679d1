// Package tenancypg opens the databases of tenants on PostgreSQL, with pgx.
//
// [Engine] is what Config.Engine wants. Its connections are pgx's own
// database/sql connections with three things added: they tell when their
// socket is truly gone, which may be seconds after Close; a dead one leaves its
// pool at once; and the ping before a reuse can't hang. [Raw] hands out the
// pgx connection under a [database/sql.Conn], for CopyFrom or LISTEN.
package tenancypg

import (
	"context"
	"database/sql/driver"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gorm-tenancy/tenancy"
)

var (
	_ tenancy.Engine  = Engine{}
	_ tenancy.Dialect = Engine{}
)

// defaultConnectTimeout is Engine.ConnectTimeout's default. pgx has none: a
// server that accepts and then says nothing would hold a caller for ever.
const defaultConnectTimeout = 5 * time.Second

// Engine opens PostgreSQL databases. The zero value is ready to use. It may be
// used by many goroutines at once, if its functions may.
type Engine struct {
	// Configure is called once for each Connector or ConnectorConfig, after
	// the other fields were applied, and may change what pgx made of the DSN:
	// a tracer, a TLS configuration, an exec mode for PgBouncer, or a smaller
	// statement cache (pgx keeps up to 512 prepared statements on each
	// connection, and each costs the server some 17 KB). It must not keep
	// the pointer. An error becomes Connector's, so it must not hold the
	// password. Defaults to nil, which changes nothing.
	//
	// It is also the place for a DialFunc or LookupFunc of your own: all of
	// the engine's sockets come from it. That is more than one for a
	// connection: pgx dials for each host and each try with and without TLS
	// (sslmode=prefer), and once more to cancel a query (pgconn.go,
	// PgConn.CancelRequest), then with the address that the first socket gave
	// as its RemoteAddr. So sockets counted in a DialFunc are not
	// connections.
	Configure func(*pgx.ConnConfig) error

	// BeforeConnect is called before each connection is dialled, for
	// credentials that change: a password from a vault, a token of some
	// minutes. cfg is a copy for this dial, as Configure left it. Set in it
	// User, Password, TLSConfig and that of the Fallbacks, SSLCertMode or
	// OAuthTokenProvider; what else is changed has no effect, and belongs in
	// Configure. Defaults to nil, which changes nothing.
	//
	// It can't lead elsewhere: Database, Host, Port, or the hosts and ports of
	// Fallbacks that differ afterwards are an error, and nothing is dialled.
	// So is a TLSConfig that was taken away or has another ServerName, by
	// which proxies route.
	//
	// ctx is the dial's, and ends after the connect timeout at the latest. An
	// error, which must not hold the password, becomes the dial's; see
	// [Engine.Classify]. Connections that are open keep going with what they
	// logged in with, until Limits.ConnMaxLifetime ends them. It may be called
	// from many goroutines at once.
	BeforeConnect func(ctx context.Context, cfg *pgx.ConnConfig) error

	// PreferSimpleProtocol makes queries without prepared statements the
	// default, as the field of the same name in gorm.io/driver/postgres
	// does: for connection poolers that can't carry them. Defaults to false.
	PreferSimpleProtocol bool

	// ConnectTimeout bounds an attempt to connect to one address, for a DSN
	// that sets no connect_timeout (nor does PGCONNECT_TIMEOUT). Make it
	// longer for servers far away. Defaults to 5 seconds; negative means no
	// bound, as in pgx and as connect_timeout=0 in the DSN says.
	ConnectTimeout time.Duration
}

// Dialect returns "postgres", the name of gorm.io/driver/postgres's Dialector.
func (Engine) Dialect() string { return "postgres" }

// Connector parses dsn, a URL or keyword/value string as [pgx.ParseConfig]
// takes it, and returns what opens connections to it: a
// [tenancy.PermitConnector]. Nothing is dialled.
//
// The DSN must name its database itself, or by a service: one that falls back
// to PGDATABASE or to the user's name is an error, because such a fallback is
// some other database. So is a name of more than 63 bytes, which the server
// would cut off without a word. TimeZone, timezone or time_zone in the DSN
// means what it means to gorm.io/driver/postgres, and has to be known to
// [time.LoadLocation] here.
//
// An error holds nothing of the DSN, so no password either.
func (e Engine) Connector(dsn string) (driver.Connector, error) {
	cfg, loc, err := e.parse(dsn)
	if err != nil {
		return nil, err
	}
	return newConnector(cfg, loc, e.BeforeConnect), nil
}

// ConnectorConfig is Connector for a configuration that the application has
// made itself, for instance with the dialer of a cloud's connector library, and
// is meant for [tenancy.Database]'s Connector. cfg must come from
// [pgx.ParseConfig], as pgx demands; a copy is taken. The fields of e apply as
// they do to a DSN.
//
// cfg.Database must name the tenant's database, in at most 63 bytes; a name
// that only PGDATABASE gave is an error.
//
// Each call returns another connector, and the plugin can't see that two of
// them lead to one database. So make one for each tenant and let the resolver
// return that one again; after a change make a new one, and change
// [tenancy.Database]'s Version with it.
func (e Engine) ConnectorConfig(cfg *pgx.ConnConfig) (driver.Connector, error) {
	if err := checkConfig(cfg); err != nil {
		return nil, err
	}
	cfg = cfg.Copy()
	loc, err := e.apply(cfg, cfg.ConnString())
	if err != nil {
		return nil, err
	}
	return newConnector(cfg, loc, e.BeforeConnect), nil
}

// Server returns host:port of where dsn leads, the host in lower case; several
// are joined by commas, and a directory of Unix sockets is kept as it is. It
// returns "" for a DSN that can't be parsed. Configure is not asked.
func (Engine) Server(dsn string) string {
	cfg, err := parseConfig(dsn)
	if err != nil {
		return ""
	}
	return servers(cfg)
}

// servers returns the addresses of cfg in the order in which pgx tries them.
func servers(cfg *pgx.ConnConfig) string {
	all := []string{address(cfg.Host, cfg.Port)}
	for _, f := range cfg.Fallbacks {
		// sslmode=prefer lists each host twice, with and without TLS.
		if a := address(f.Host, f.Port); !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	return strings.Join(all, ",")
}

func address(host string, port uint16) string {
	p := strconv.Itoa(int(port))
	if isSocketDir(host) {
		return host + ":" + p
	}
	return net.JoinHostPort(strings.ToLower(host), p)
}
