package sandbox_test

import (
	"database/sql"
	"database/sql/driver"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/gorm-tenancy/tenancy/internal/sandbox"
)

// TestColumns compares what a sandbox says of columns and values with what pgx
// says.
func TestColumns(t *testing.T) {
	p, s, db := begun(t)
	plain := sql.OpenDB(newPlace(t).connector(t))
	defer plain.Close()
	for _, query := range []string{
		`SELECT 1::int2 a, 2::int4 b, 3::int8 c, 1.5::float4 d, 2.5::float8 e, 12.34::numeric(6,2) f, 1::numeric g, true h,
			'x'::text i, 'x'::varchar(7) k, 'x'::char(5) l, '\x00ff'::bytea m, ''::bytea n, '2020-01-02'::date o,
			'2020-01-02 03:04:05.678'::timestamp p, '2020-01-02 03:04:05+02'::timestamptz q, '{"a": 1}'::json r, '[1]'::jsonb s,
			'<a/>'::xml t, 'infinity'::timestamptz u, '1 day'::interval v, '{1,2}'::int[] w, '10.0.0.0/8'::cidr x, 7::oid y,
			'[1,3)'::int4range z, B'101'::varbit(9) aa, 'a'::"char" bb, 'users'::regclass cc`,
		"SELECT NULL::int a, NULL::bytea b, NULL::timestamptz c, NULL::json d, NULL e",
		"SELECT g, repeat('x', g) FROM generate_series(1, 4) g",
		"SELECT * FROM users",
		"INSERT INTO users (name) SELECT 'u' || g FROM generate_series(1, 3) g RETURNING name, age",
		"SELECT 1 AS a, 2 AS a",
		"SELECT",
		"SET work_mem = '4MB'",
		"",
	} {
		got, want := describe(t, db, query), describe(t, plain, query)
		if !slices.Equal(got, want) {
			t.Errorf("%s\n in a sandbox: %q\nof pgx: %q", query, got, want)
		}
	}
	end(t, p, s)
}

func describe(t *testing.T, db *sql.DB, query string) (all []string) {
	t.Helper()
	rows, err := db.Query(query)
	if err != nil {
		return []string{err.Error()}
	}
	defer rows.Close()
	columns, err := rows.ColumnTypes()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range columns {
		length, hasLength := c.Length()
		precision, scale, decimal := c.DecimalSize()
		nullable, known := c.Nullable()
		all = append(all, fmt.Sprint(c.Name(), c.DatabaseTypeName(), c.ScanType(), length, hasLength, precision, scale, decimal, nullable, known))
	}
	for rows.Next() {
		values := make([]any, len(columns))
		into := make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			t.Fatal(err)
		}
		for _, v := range values {
			all = append(all, fmt.Sprintf("%T %v %t", v, v, v == nil))
		}
	}
	return append(all, fmt.Sprint(rows.Err()))
}

// reusing are rows of a driver that writes all of its bytes into one place, as
// driver.Rows may.
type reusing struct {
	left int
	buf  []byte
}

func (r *reusing) Columns() []string { return []string{"b"} }
func (r *reusing) Close() error      { return nil }

func (r *reusing) Next(dest []driver.Value) error {
	if r.left == 0 {
		return io.EOF
	}
	r.buf[0] = byte('a' + r.left)
	r.left--
	dest[0] = r.buf
	return nil
}

func TestBytesAreCopied(t *testing.T) {
	rows, err := sandbox.Read(&reusing{left: 3, buf: make([]byte, 1)})
	if err != nil {
		t.Fatal(err)
	}
	dest := make([]driver.Value, 1)
	for _, want := range []string{"d", "c", "b"} {
		if err := rows.Next(dest); err != nil || string(dest[0].([]byte)) != want {
			t.Errorf("%s, %v; want %s", dest[0], err, want)
		}
	}
}
