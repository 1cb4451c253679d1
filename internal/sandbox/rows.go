package sandbox

import (
	"bytes"
	"database/sql/driver"
	"errors"
	"io"
	"reflect"
)

// rows are rows in memory, with what the driver says of their columns.
type rows struct {
	names []string
	types []columnType
	rest  [][]driver.Value
	err   error // after the last of rest; nil for the end
	conn  *conn // has them open until the end; nil before it knows
}

// columnType holds the answers of the driver's rows about one column; where the
// driver has none, those that database/sql gives (database/sql/sql.go,
// rowsColumnInfoSetupConnLocked).
type columnType struct {
	name             string
	scan             reflect.Type
	length           int64
	hasLength        bool
	precision, scale int64
	decimal          bool
	nullable, knows  bool
}

// read reads all rows, and closes inner. The rows that came before an error are
// returned with it.
func read(inner driver.Rows) (*rows, error) {
	r := &rows{names: inner.Columns()}
	r.types = make([]columnType, len(r.names))
	for i := range r.types {
		r.types[i] = typeOf(inner, i)
	}
	for {
		row := make([]driver.Value, len(r.names))
		err := inner.Next(row)
		if err != nil {
			closed := inner.Close()
			if errors.Is(err, io.EOF) {
				err = closed
			}
			return r, err
		}
		for i, v := range row {
			if b, ok := v.([]byte); ok { // the driver's, until its next Next
				row[i] = bytes.Clone(b)
			}
		}
		r.rest = append(r.rest, row)
	}
}

func typeOf(inner driver.Rows, i int) columnType {
	t := columnType{scan: reflect.TypeFor[any]()}
	if x, ok := inner.(driver.RowsColumnTypeDatabaseTypeName); ok {
		t.name = x.ColumnTypeDatabaseTypeName(i)
	}
	if x, ok := inner.(driver.RowsColumnTypeScanType); ok {
		t.scan = x.ColumnTypeScanType(i)
	}
	if x, ok := inner.(driver.RowsColumnTypeLength); ok {
		t.length, t.hasLength = x.ColumnTypeLength(i)
	}
	if x, ok := inner.(driver.RowsColumnTypePrecisionScale); ok {
		t.precision, t.scale, t.decimal = x.ColumnTypePrecisionScale(i)
	}
	if x, ok := inner.(driver.RowsColumnTypeNullable); ok {
		t.nullable, t.knows = x.ColumnTypeNullable(i)
	}
	return t
}

func (r *rows) Columns() []string { return r.names }

func (r *rows) Next(dest []driver.Value) error {
	if len(r.rest) == 0 {
		r.end()
		if r.err != nil {
			return r.err
		}
		return io.EOF
	}
	copy(dest, r.rest[0])
	r.rest = r.rest[1:]
	return nil
}

// Close forgets the rest. pgx's rows return an error here that has come in what
// was not read yet.
func (r *rows) Close() error {
	r.rest = nil
	r.end()
	return r.err
}

// end lets the connection be used again. database/sql holds its lock for
// whatever it calls of both.
func (r *rows) end() {
	if r.conn != nil && r.conn.open == r {
		r.conn.open = nil
	}
}

func (r *rows) ColumnTypeDatabaseTypeName(i int) string { return r.types[i].name }

func (r *rows) ColumnTypeScanType(i int) reflect.Type { return r.types[i].scan }

func (r *rows) ColumnTypeLength(i int) (int64, bool) { return r.types[i].length, r.types[i].hasLength }

func (r *rows) ColumnTypePrecisionScale(i int) (precision, scale int64, ok bool) {
	return r.types[i].precision, r.types[i].scale, r.types[i].decimal
}

func (r *rows) ColumnTypeNullable(i int) (nullable, ok bool) {
	return r.types[i].nullable, r.types[i].knows
}
