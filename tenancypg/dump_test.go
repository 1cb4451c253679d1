package tenancypg

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/jackc/pgx/v5"

	"github.com/gorm-tenancy/tenancy/catalog"
)

func TestDumpRestore(t *testing.T) {
	each(t, func(t *testing.T, roles string) {
		p := newPlace(t, roles)
		ctx := p.ctx()
		from, to := p.name(), p.name()
		src := p.made(from)
		db, err := src.DB(ctx)
		p.ok(err)
		_, err = db.Exec(`CREATE TABLE big AS SELECT i AS id, md5(i::text) || repeat(md5((-i)::text), 3) AS text FROM generate_series(1, 50000) i;
			CREATE INDEX ON big (id); SELECT setval('items_id_seq', 4711)`)
		p.ok(err)
		p.ok(src.Fence(ctx, 0))
		var dump bytes.Buffer
		p.ok(src.Dump(ctx, &dump))
		p.refused(from)
		if dump.Len() < 1<<20 {
			t.Errorf("the dump has %d bytes", dump.Len())
		}

		ses := p.session(to)
		p.ok(ses.Create(ctx, ""))
		p.ok(ses.Mark(ctx, meta("half", 1)))
		for range 2 {
			p.ok(ses.Restore(ctx, bytes.NewReader(dump.Bytes())))
			p.refused(to)
		}
		if m, err := ses.Owner(ctx); err != nil || m != meta("u1", 1) {
			t.Errorf("%+v, %v", m, err)
		}
		if err := ses.Mark(ctx, meta("u2", 2)); !errors.Is(err, catalog.ErrForeign) {
			t.Error(err)
		}
		m := meta("u2", 2)
		m.Replaces = "u1"
		p.ok(ses.Mark(ctx, m))
		p.ok(ses.Open(ctx))
		p.works(to)
		var n, next int
		var sum string
		p.ok(p.appDB(to).QueryRow("SELECT count(*), md5(string_agg(text, '' ORDER BY id)) FROM big").Scan(&n, &sum))
		var want string
		p.ok(db.QueryRow("SELECT md5(string_agg(text, '' ORDER BY id)) FROM big").Scan(&want))
		p.ok(db.Close())
		p.ok(p.appDB(to).QueryRow("SELECT nextval('items_id_seq')").Scan(&next))
		if n != 50000 || sum != want || next < 4712 {
			t.Errorf("%d rows, sums %s and %s, next %d", n, sum, want, next)
		}

		// Cut off anywhere, it is an error, and nothing half is left.
		failed := errors.New("the bucket has gone")
		for _, r := range []io.Reader{
			strings.NewReader(""), strings.NewReader("rubbish"),
			bytes.NewReader(dump.Bytes()[:100]), bytes.NewReader(dump.Bytes()[:dump.Len()/2]), bytes.NewReader(dump.Bytes()[:dump.Len()-3]),
			io.MultiReader(bytes.NewReader(dump.Bytes()[:dump.Len()/2]), iotest.ErrReader(failed)),
			io.MultiReader(&dump, iotest.ErrReader(failed)),
		} {
			err := ses.Restore(ctx, r)
			p.fails(err, "restoring")
			if there, err := ses.Exists(ctx); err != nil || there {
				t.Errorf("half a database: %t, %v", there, err)
			}
		}
	})
}

type brokenWriter struct{ err error }

func (w brokenWriter) Write([]byte) (int, error) { return 0, w.err }

func TestDumpFails(t *testing.T) {
	p := newPlace(t, apart)
	ctx, name := p.ctx(), p.name()
	ses := p.made(name)
	full := errors.New("the bucket is full")
	if err := ses.Dump(ctx, brokenWriter{full}); !errors.Is(err, full) {
		t.Errorf("%v", err)
	}
	p.fails(p.session(p.name()).Dump(ctx, io.Discard), "does not exist")

	// A ctx ends the program.
	slow, cancel := context.WithCancel(ctx)
	r, w := io.Pipe()
	go func() {
		_, _ = w.Write([]byte("P")) // until pg_restore reads
		cancel()
		_ = w.Close()
	}()
	if err := ses.Restore(slow, r); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}

	for _, tt := range []struct{ script, want string }{
		{"", "BinDir"},
		{"echo 'pg_dump: error: aborting because of server version mismatch' >&2; exit 1", "older than the server"},
		{"echo \"$@\" >&2; env >&2; exit 1", "exit status 1"},
	} {
		dir := t.TempDir()
		if tt.script != "" {
			p.ok(os.WriteFile(filepath.Join(dir, "pg_dump"), []byte("#!/bin/sh\n"+tt.script+"\n"), 0o700))
		}
		other := *p.s
		other.cfg.BinDir = dir
		ses := &session{}
		got, err := other.Session(ctx, p.name(), false)
		p.ok(err)
		ses = got.(*session)
		p.ok(ses.Create(ctx, ""))
		err = ses.Dump(ctx, io.Discard)
		if !strings.HasPrefix(tt.script, "echo \"$@\"") {
			p.fails(err, tt.want)
		} else if args, _, _ := strings.Cut(err.Error(), "PG"); strings.Contains(args, secret) {
			t.Errorf("the arguments hold the password: %v", err)
		}
		p.ok(ses.Close())
	}
}

// What libpq is told is what the DSN says, in both of its forms.
func TestLibpqEnv(t *testing.T) {
	clearEnv(t)
	for _, name := range []string{"PGSERVICE", "PGHOSTADDR", "PGDATABASE"} {
		t.Setenv(name, "")
	}
	for _, dsn := range []string{
		"postgres://u%20s:" + secret + "@h1:1,h2:2/postgres?sslmode=require&sslsni=0&channel_binding=prefer&connect_timeout=7&target_session_attrs=read-write",
		"host=h1,h2 port=1,2 user='u s' password = '" + secret + "' dbname=postgres sslmode = 'require' sslsni=0 channel_binding=pre\\fer connect_timeout=7 target_session_attrs='read-write'",
	} {
		s, err := NewServer(ServerConfig{App: dsn, Admin: dsn, AdminEngine: Engine{
			BeforeConnect: func(_ context.Context, c *pgx.ConnConfig) error { c.Password += "!"; return nil },
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		t.Setenv("PGHOSTADDR", "192.0.2.1")
		env, err := (&session{s: s, name: "postgres://x", token: "tok"}).libpqEnv(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		all := "\n" + strings.Join(env, "\n") + "\n"
		for _, want := range []string{
			"PGHOST=h1,h2", "PGPORT=1,2", "PGUSER=u s", "PGPASSWORD=" + secret + "!", "PGDATABASE=postgres://x",
			"PGSSLMODE=require", "PGSSLSNI=0", "PGCHANNELBINDING=prefer", "PGCONNECT_TIMEOUT=7", "PGAPPNAME=tok program",
			"PGTARGETSESSIONATTRS=read-write", // or a standby would be dumped
		} {
			if !strings.Contains(all, "\n"+want+"\n") {
				t.Errorf("no %s", want)
			}
		}
		if strings.Contains(all, "PGHOSTADDR") {
			t.Error("PGHOSTADDR leads elsewhere")
		}
	}
}
