package tenancygoose

import (
	"context"
	"slices"

	"github.com/pressly/goose/v3/database"
)

// readStore is goose's store for one Up, with what was read before. Nobody else
// changes it: the caller has the database's lock. goose would read it three
// times more, and ask for the table (goose provider.go, hasPending and up;
// provider_run.go, ensureVersionTable and getDBMaxVersion), which is a third of
// what a small migration takes over a network.
type readStore struct {
	database.Store
	rows []*database.ListMigrationsResult
}

var _ database.StoreExtender = (*readStore)(nil)

// TableExists implements database.StoreExtender: it was looked for, or made.
func (s *readStore) TableExists(context.Context, database.DBTxConn) (bool, error) { return true, nil }

// ListMigrations implements database.Store.
func (s *readStore) ListMigrations(context.Context, database.DBTxConn) ([]*database.ListMigrationsResult, error) {
	return slices.Clone(s.rows), nil
}

// Insert implements database.Store. After one that is rolled back goose asks
// nothing more.
func (s *readStore) Insert(ctx context.Context, db database.DBTxConn, req database.InsertRequest) error {
	if err := s.Store.Insert(ctx, db, req); err != nil {
		return err
	}
	s.rows = append(s.rows, &database.ListMigrationsResult{Version: req.Version, IsApplied: true})
	return nil
}

// GetLatestVersion implements database.Store.
func (s *readStore) GetLatestVersion(context.Context, database.DBTxConn) (version int64, err error) {
	for _, r := range s.rows {
		version = max(version, r.Version)
	}
	return version, nil
}
