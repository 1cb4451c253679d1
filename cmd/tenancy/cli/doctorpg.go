package cli

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/gorm-tenancy/tenancy/tenancypg"
)

// oldest is the oldest PostgreSQL that tenancypg works with.
const oldest = 13

// server is what a PostgreSQL server says of itself and its administrator.
type server struct {
	pooler                      bool
	version                     int
	role                        string
	creates, superuser, signals bool
	maxConns, reserved, used    int
}

// postgres looks at a PostgreSQL server as its administrator.
func (d *doctor) postgres(name string, a Access) {
	check := "server " + name
	var s server
	err := d.within(func(ctx context.Context) (err error) {
		s, err = lookAt(ctx, a.Admin)
		return err
	})
	var pg *pgconn.PgError
	if err != nil {
		next := "see that it runs, and what the configuration says of its administrator"
		if errors.As(err, &pg) {
			next = "see its administrator's name and password in the configuration"
		}
		d.judge(check+", administrator", err, "", next)
		return
	}
	if s.pooler {
		d.add(check+", administrator", fail, "its DSN leads through a connection pooler, where locks hold nothing", "name the server itself")
		return
	}
	d.version(check, s)
	if s.creates || s.superuser {
		d.add(check+", rights", ok, s.role+" may create databases", "")
	} else {
		d.add(check+", rights", fail, s.role+" may not create databases", fmt.Sprintf("run: ALTER ROLE %q CREATEDB", s.role))
	}
	if !s.signals && !s.superuser {
		d.add(check+", rights", warn, s.role+" may not end the application's sessions, so a suspend can fail", fmt.Sprintf("run: GRANT pg_signal_backend TO %q", s.role))
	}
	free := s.maxConns - s.reserved - s.used
	detail := fmt.Sprintf("%d of %d in use", s.used, s.maxConns)
	if free*5 < s.maxConns {
		d.add(check+", connections", warn, detail, "raise max_connections, or give the processes smaller budgets")
	} else {
		d.add(check+", connections", ok, detail, "")
	}
	d.programs(check, a, s.version/10000)
}

func (d *doctor) version(check string, s server) {
	text := fmt.Sprintf("PostgreSQL %d.%d", s.version/10000, s.version%10000)
	if s.version/10000 < oldest {
		d.add(check+", version", fail, text, fmt.Sprintf("%d is the oldest that works", oldest))
		return
	}
	d.add(check+", version", ok, text, "")
}

// lookAt asks the server in the administrator's maintenance database. It has
// tenancypg parse the DSN, whose errors hold nothing of it.
func lookAt(ctx context.Context, dsn string) (s server, err error) {
	c, err := (tenancypg.Engine{}).Connector(dsn)
	if err != nil {
		return s, err
	}
	db := sql.OpenDB(c)
	defer db.Close() //nolint:errcheck // it has only read
	conn, err := db.Conn(ctx)
	if err != nil {
		return s, err
	}
	defer conn.Close() //nolint:errcheck // likewise
	err = tenancypg.Raw(conn, func(pc *pgx.Conn) error {
		var pid uint32
		err := pc.QueryRow(ctx, `SELECT pg_backend_pid(), current_setting('server_version_num')::int, current_user::text,
			r.rolcreatedb, r.rolsuper, pg_has_role('pg_signal_backend', 'member'),
			current_setting('max_connections')::int, current_setting('superuser_reserved_connections')::int,
			(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')
			FROM pg_roles r WHERE r.rolname = current_user`, pgx.QueryExecModeSimpleProtocol).
			Scan(&pid, &s.version, &s.role, &s.creates, &s.superuser, &s.signals, &s.maxConns, &s.reserved, &s.used)
		s.pooler = pid != pc.PgConn().PID() // a pooler gives its clients numbers of its own
		return err
	})
	return s, err
}

// programs looks for pg_dump and pg_restore where tenancypg does.
func (d *doctor) programs(check string, a Access, major int) {
	for _, name := range []string{"pg_dump", "pg_restore"} {
		file, err := program(a.BinDir, name, major)
		if err != nil {
			d.add(check+", "+name, warn, "it was not found, so there are no dumps, moves and backups",
				fmt.Sprintf("install the client programs of PostgreSQL %d, or set bin_dir", major))
			continue
		}
		d.add(check+", "+name, ok, file, "")
	}
}

func program(dir, name string, major int) (string, error) {
	if dir != "" {
		file := filepath.Join(dir, name)
		_, err := os.Stat(file)
		return file, err
	}
	own := filepath.Join("/usr/lib/postgresql", strconv.Itoa(major), "bin", name)
	if _, err := os.Stat(own); err == nil {
		return own, nil
	}
	if file, err := exec.LookPath(name); err == nil {
		return file, nil
	}
	packaged, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name) // fails on a bad pattern only
	if len(packaged) == 0 {
		return "", os.ErrNotExist
	}
	return packaged[len(packaged)-1], nil
}
