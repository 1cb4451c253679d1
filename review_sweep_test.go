package tenancy_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
)

// A panic of Progress is passed on too, also for a tenant that can't be opened.
func TestReviewProgressPanics(t *testing.T) {
	e := openSQLite(t)
	require.Panics(t, func() {
		_ = tenancy.Each(context.Background(), e.db, ids("nobody", idA), tenancy.EachOptions{
			Parallel: 2,
			Progress: func(tenancy.EachProgress) { panic("no") },
		}, func(context.Context, string, *gorm.DB) error { return nil })
	})
}
