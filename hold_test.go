package tenancy_test

import (
	"database/sql"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
)

type movingOrder struct {
	ID    uint
	Title string
}

func (movingOrder) TableName() string               { return "orders" }
func (*movingOrder) BeforeCreate(tx *gorm.DB) error { tenancy.Main(tx); return nil }

func TestHookCantMoveAWriteToMain(t *testing.T) {
	e := openSQLite(t, withGorm(func(c *gorm.Config) { c.SkipDefaultTransaction = true }))
	before := e.dumps()
	for _, db := range []*gorm.DB{e.in(idA), tenancy.For(e.db, idA)} {
		require.ErrorIs(t, db.Create(&movingOrder{Title: "moved"}).Error, tenancy.ErrTenantMismatch)
	}
	require.Equal(t, before, e.dumps())
}

func TestNamedSubqueryErrorIsSeen(t *testing.T) {
	e := openSQLite(t)
	before := e.dumps()
	bad := e.in(idA).Model(&Customer{}).Select("id")
	_ = bad.AddError(errBoom)
	for _, arg := range []any{sql.Named("s", bad), map[string]any{"s": bad}} {
		require.ErrorIs(t, e.in(idA).Where("id NOT IN (@s)", arg).Delete(&Card{}).Error, errBoom)
	}
	require.Equal(t, before, e.dumps())
	require.NoError(t, e.in(idA).Joins("JOIN customers ON customers.name <> '"+strings.Repeat("ɐ", 60)+"'").Find(&[]Order{}).Error)
}
