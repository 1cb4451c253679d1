package tenancy_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
)

// The tests named TestRedTeam are the ways in which a statement could reach
// the wrong database or lose its error. Most of them are attacks that fail;
// some pin what no plugin can close, so that the documentation stays true.

// refused requires that attack fails with want, changes no database and sends
// nothing to any.
func (e *env) refused(want error, attack func() error) {
	e.t.Helper()
	before := e.dumps()
	e.calls.reset()
	require.ErrorIs(e.t, attack(), want)
	require.Empty(e.t, e.calls.list())
	require.Equal(e.t, before, e.dumps())
}

// unchanged requires that attack changes no database but those named.
func (e *env) unchanged(attack func(), except ...string) {
	e.t.Helper()
	before := e.dumps(except...)
	attack()
	require.Equal(e.t, before, e.dumps(except...))
}

// sent returns the statements that reached a driver, "connect" left out.
func (e *env) sent() []string {
	out := []string{}
	for _, call := range e.calls.list() {
		if !strings.HasSuffix(call, ": connect") {
			out = append(out, call)
		}
	}
	return out
}

func titles(t *testing.T, db *gorm.DB) []string {
	t.Helper()
	out := []string{}
	require.NoError(t, db.Model(&Order{}).Order("id").Pluck("title", &out).Error)
	return out
}

func ordersOf(id string) []string { return []string{"order 1 of " + id, "order 2 of " + id} }

// writesAndReads goes through GORM's six processors.
var writesAndReads = map[string]func(*gorm.DB) error{
	"create": func(db *gorm.DB) error { return db.Create(&Tag{Name: "attack"}).Error },
	"query":  func(db *gorm.DB) error { return db.Find(&[]Tag{}).Error },
	"update": func(db *gorm.DB) error { return db.Model(&Tag{}).Where("id = 1").Update("name", "attack").Error },
	"delete": func(db *gorm.DB) error { return db.Where("1 = 1").Delete(&Tag{}).Error },
	"row":    func(db *gorm.DB) error { return db.Table("tags").Select("name").Row().Scan(new(string)) },
	"rows": func(db *gorm.DB) error {
		rows, err := db.Table("tags").Rows()
		if err == nil {
			err = rows.Close()
		}
		return err
	},
	"raw":  func(db *gorm.DB) error { return db.Exec("DELETE FROM tags").Error },
	"scan": func(db *gorm.DB) error { return db.Raw("SELECT name FROM tags").Scan(new(string)).Error },
}

// What every mode of gorm has to refuse without a tenant, and to keep in its
// tenant's database with one.
func TestRedTeam43EveryMode(t *testing.T) {
	modes := map[string]func(*gorm.Config){
		"plain":    func(*gorm.Config) {},
		"prepared": func(c *gorm.Config) { c.PrepareStmt = true },
		"no tx":    func(c *gorm.Config) { c.SkipDefaultTransaction = true },
		"timeouts": func(c *gorm.Config) { c.DefaultContextTimeout, c.DefaultTransactionTimeout = time.Minute, time.Minute },
		"batches":  func(c *gorm.Config) { c.CreateBatchSize = 1 },
		"full":     func(c *gorm.Config) { c.FullSaveAssociations = true },
	}
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		for name, mode := range modes {
			t.Run(name, func(t *testing.T) {
				e := open(withGorm(mode))
				for _, run := range everyCall {
					e.refused(tenancy.ErrNoTenant, func() error { return run(e.db) })
				}
				e.unchanged(func() {
					for call, run := range everyCall {
						require.NoError(t, run(e.in(idA)), call)
						require.NoError(t, run(e.in(idA).Session(&gorm.Session{PrepareStmt: true})), call)
						require.NoError(t, e.in(idA).Transaction(run), call)
					}
				}, idA)
				ctx, cancel := context.WithCancel(e.ctx(idB))
				tx := e.db.WithContext(ctx).Begin()
				require.NoError(t, tx.Create(&Tag{Name: "x"}).Error)
				cancel()
				e.unchanged(func() { require.Error(t, tx.Commit().Error) })
			})
		}
	})
}

var everyCall = map[string]func(*gorm.DB) error{
	"create": func(db *gorm.DB) error {
		return db.Create(&Customer{Name: "c", Orders: []Order{{Title: "o"}}, Tags: []Tag{{Name: "t"}}, Notes: []Note{{Text: "n"}}}).Error
	},
	"batch":  func(db *gorm.DB) error { return db.Create([]Tag{{Name: "1"}, {Name: "2"}}).Error },
	"map":    func(db *gorm.DB) error { return db.Model(&Tag{}).Create(map[string]any{"name": "m"}).Error },
	"save":   func(db *gorm.DB) error { return db.Save(&Tag{Name: "s"}).Error },
	"first":  func(db *gorm.DB) error { return db.First(&Order{}).Error },
	"joins":  func(db *gorm.DB) error { return db.Joins("Customer").Find(&[]Order{}).Error },
	"count":  func(db *gorm.DB) error { return db.Model(&Order{}).Count(new(int64)).Error },
	"update": func(db *gorm.DB) error { return db.Model(&Tag{}).Where("id = 1").Updates(Tag{Name: "u"}).Error },
	"columns": func(db *gorm.DB) error {
		return db.Model(&Tag{}).Where("id = 1").UpdateColumn("name", gorm.Expr("name || 'x'")).Error
	},
	"preload": func(db *gorm.DB) error {
		return db.Preload("Orders").Preload("Tags").Preload("Notes").Preload("Card").First(&Customer{}).Error
	},
	"batches": func(db *gorm.DB) error {
		return db.FindInBatches(&[]Order{}, 1, func(*gorm.DB, int) error { return nil }).Error
	},
	"first or create": func(db *gorm.DB) error { return db.Where(Tag{Name: "foc"}).FirstOrCreate(&Tag{}).Error },
	"append": func(db *gorm.DB) error {
		return db.Model(&Customer{ID: 1}).Association("Tags").Append(&Tag{Name: "a"})
	},
	"replace": func(db *gorm.DB) error {
		return db.Model(&Customer{ID: 1}).Association("Orders").Replace(&Order{Title: "r"})
	},
	"delete":  func(db *gorm.DB) error { return db.Where("title = 'r'").Delete(&Order{}).Error },
	"exec":    func(db *gorm.DB) error { return db.Exec("UPDATE notes SET text = 'e'").Error },
	"row":     func(db *gorm.DB) error { return db.Raw("SELECT 1").Row().Scan(new(int)) },
	"migrate": func(db *gorm.DB) error { return db.AutoMigrate(&Order{}) },
	"generic": func(db *gorm.DB) error {
		return gorm.G[Tag](db).Create(db.Statement.Context, &Tag{Name: "g"})
	},
	"nested": func(db *gorm.DB) error {
		return db.Transaction(func(tx *gorm.DB) error {
			return tx.Transaction(func(tx *gorm.DB) error { return tx.Create(&Tag{Name: "n"}).Error })
		})
	},
}
