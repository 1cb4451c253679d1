package tenancypg

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
)

// libpqKeys are the parts of a DSN that pgx turns into something else, and
// libpq's programs must be told of: each has an environment variable
// (https://www.postgresql.org/docs/current/libpq-envars.html).
var libpqKeys = map[string]string{
	"sslmode":         "PGSSLMODE",
	"sslrootcert":     "PGSSLROOTCERT",
	"sslcert":         "PGSSLCERT",
	"sslkey":          "PGSSLKEY",
	"sslsni":          "PGSSLSNI",
	"sslcertmode":     "PGSSLCERTMODE",
	"sslnegotiation":  "PGSSLNEGOTIATION",
	"channel_binding": "PGCHANNELBINDING",
	"require_auth":    "PGREQUIREAUTH",
	"krbsrvname":      "PGKRBSRVNAME",
	// Of several hosts, not the first one but the one that this means.
	"target_session_attrs": "PGTARGETSESSIONATTRS",
}

// libpqEnv returns the environment of pg_dump and pg_restore, which hides
// nothing else of PostgreSQL's from this process's own: PGSERVICE or
// PGHOSTADDR would lead elsewhere. The password is in it, and never among the
// arguments, which all users of a machine can read.
//
// What AdminEngine's Configure and BeforeConnect change counts only as far as
// it is host, port, user and password.
func (ses *session) libpqEnv(ctx context.Context) ([]string, error) {
	dsn := ses.s.cfg.Admin
	cfg := ses.s.adm.Copy()
	if _, err := ses.s.cfg.AdminEngine.apply(cfg, dsn); err != nil {
		return nil, err
	}
	if before := ses.s.cfg.AdminEngine.BeforeConnect; before != nil {
		if err := beforeConnect(before).login(cfg.Copy())(ctx, cfg); err != nil {
			return nil, err
		}
	}
	if sets(cfg, dsn, "sslpassword") {
		return nil, errors.New("an sslpassword can't be given to pg_dump: use a key without one for ServerConfig.Admin")
	}
	if sets(cfg, dsn, "service") && cfg.TLSConfig != nil && !sets(cfg, dsn, "sslmode") {
		return nil, errors.New("what a service file says of TLS can't be given to pg_dump: name sslmode and the certificates in ServerConfig.Admin itself")
	}

	var hosts, ports []string
	add := func(host string, port uint16) {
		p := strconv.Itoa(int(port))
		for i := range hosts {
			if hosts[i] == host && ports[i] == p {
				return
			}
		}
		hosts, ports = append(hosts, host), append(ports, p)
	}
	add(cfg.Host, cfg.Port)
	for _, f := range cfg.Fallbacks {
		add(f.Host, f.Port)
	}
	set := map[string]string{
		"PGHOST":            strings.Join(hosts, ","),
		"PGPORT":            strings.Join(ports, ","),
		"PGUSER":            cfg.User,
		"PGPASSWORD":        cfg.Password,
		"PGDATABASE":        ses.name, // taken as it is; an argument may be a whole DSN
		"PGAPPNAME":         ses.token + programSuffix,
		"PGOPTIONS":         "-c default_transaction_read_only=off",
		"PGCONNECT_TIMEOUT": strconv.Itoa(max(int(cfg.ConnectTimeout.Seconds()), 0)),
		"LC_ALL":            "C", // its messages are told apart
	}
	for key, name := range libpqKeys {
		if v, ok := os.LookupEnv(name); ok && v != "" {
			set[name] = v
		}
		if v, ok := dsnValue(dsn, key); ok {
			set[name] = v
		}
	}
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool {
		return strings.HasPrefix(kv, "PG") || strings.HasPrefix(kv, "LC_") || strings.HasPrefix(kv, "LANG")
	})
	for name, value := range set {
		if strings.IndexByte(value, 0) >= 0 {
			return nil, fmt.Errorf("%s holds a NUL byte", name)
		}
		env = append(env, name+"="+value)
	}
	return env, nil
}

// dsnValue returns what dsn, which pgx has parsed, sets key to.
func dsnValue(dsn, key string) (string, bool) {
	if strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://") {
		u, err := url.Parse(dsn)
		if err != nil {
			return "", false
		}
		v, ok := u.Query()[key]
		if !ok {
			return "", false
		}
		return v[0], true
	}
	return keywordValue(dsn, key)
}

// keywordValue follows pgx's parseKeywordValueSettings (pgconn/config.go):
// key = value pairs, where a quoted value may hold spaces, and a backslash
// quotes one character. The last of several counts.
func keywordValue(dsn, key string) (value string, found bool) {
	space := func(c byte) bool { return strings.IndexByte(" \t\n\r\v\f", c) >= 0 }
	for rest := dsn; ; {
		name, after, ok := strings.Cut(rest, "=")
		if !ok {
			return value, found
		}
		name = strings.TrimSpace(name)
		rest = strings.TrimLeft(after, " \t\n\r\v\f")
		quoted := strings.HasPrefix(rest, "'")
		if quoted {
			rest = rest[1:]
		}
		var v []byte
		i := 0
		for ; i < len(rest); i++ {
			if quoted && rest[i] == '\'' || !quoted && space(rest[i]) {
				break
			}
			if rest[i] == '\\' && i+1 < len(rest) {
				i++
			}
			v = append(v, rest[i])
		}
		rest = rest[min(i+1, len(rest)):]
		if name == key {
			value, found = string(v), true
		}
	}
}
