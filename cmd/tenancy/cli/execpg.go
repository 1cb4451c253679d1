package cli

import (
	"context"
	"database/sql"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancypg"
)

// postgresStatement runs query on a connection of the tenant's. One that only
// reads runs in a READ ONLY transaction, which is rolled back, so that the
// connection keeps no SET of it either.
func postgresStatement(query string, write bool, maxRows int) func(context.Context, *gorm.DB) (*result, error) {
	return func(ctx context.Context, db *gorm.DB) (res *result, err error) {
		err = tenancy.Conn(ctx, db, func(c *sql.Conn) error {
			return tenancypg.Raw(c, func(pc *pgx.Conn) (err error) {
				if write {
					res, err = ask(ctx, pc, query, maxRows)
					return err
				}
				tx, err := pc.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly})
				if err != nil {
					return err
				}
				defer func() {
					// Not under ctx: it may be why it failed, and the connection
					// goes back to the pool. A COMMIT as the statement has ended
					// the transaction, with nothing in it.
					if undo := tx.Rollback(context.WithoutCancel(ctx)); err == nil && !errors.Is(undo, pgx.ErrTxClosed) {
						err = undo
					}
				}()
				res, err = ask(ctx, pc, query, maxRows)
				return err
			})
		})
		return res, err
	}
}

// ask runs one statement by the extended protocol, whose messages hold one
// statement each: a text of two, with a COMMIT between them, is an error of the
// server (https://www.postgresql.org/docs/current/protocol-flow.html). So it
// must be Query: pgx's Exec sends what has no arguments by the simple protocol
// (pgx conn.go, exec). The values come as the text that psql would print.
func ask(ctx context.Context, pc *pgx.Conn, query string, maxRows int) (*result, error) {
	rows, err := pc.Query(ctx, query, pgx.QueryExecModeExec, pgx.QueryResultFormats{pgx.TextFormatCode})
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	res := &result{}
	fields := rows.FieldDescriptions()
	for _, f := range fields {
		res.columns = append(res.columns, f.Name)
	}
	for rows.Next() {
		if maxRows > 0 && len(res.rows) == maxRows {
			res.more = true
			break
		}
		row := make([]*value, len(fields))
		for i, raw := range rows.RawValues() {
			if raw != nil {
				row[i] = postgresValue(fields[i].DataTypeOID, string(raw))
			}
		}
		res.rows = append(res.rows, row)
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		return nil, err
	}
	res.affected = rows.CommandTag().RowsAffected()
	return res, nil
}

func postgresValue(oid uint32, s string) *value {
	switch oid {
	case pgtype.BoolOID:
		if s == "t" {
			return literal("true")
		}
		return literal("false")
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.Float4OID, pgtype.Float8OID, pgtype.NumericOID,
		pgtype.JSONOID, pgtype.JSONBOID:
		return literal(s)
	}
	return text(s)
}
