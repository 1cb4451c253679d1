package tenancy_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"
)

// point is one way by which GORM reaches a database. Each is run in every
// situation of TestEntryPoints*.
type point struct {
	name   string
	covers []string // the exported methods of GORM that it shows
	run    func(db *gorm.DB, ctx context.Context) (string, error)

	writes  bool   // it changes the database; otherwise what run returns names it
	noScope bool   // GORM runs no scopes for it
	noError bool   // GORM's method has no way to report an error
	noTx    bool   // GORM can't do it inside a transaction
	noRoute bool   // under a tenant it is refused
	engine  string // the only one that can do it
	// ownError names the engine whose GORM driver drops the error of its first
	// look and reports one of its own.
	ownError string
}

// Gadget is the model whose table the Migrator's methods change.
type Gadget struct {
	ID   uint
	Name string `gorm:"size:40;index:idx_gadgets_name"`
	Size int    `gorm:"check:chk_gadgets_size,size >= 0"`
}

// GadgetMore is the next version of Gadget.
type GadgetMore struct {
	ID    uint
	Name  string `gorm:"size:80;index:idx_gadgets_name"`
	Size  int    `gorm:"check:chk_gadgets_size,size >= 0"`
	Color string `gorm:"index:idx_gadgets_color;check:chk_gadgets_color,color <> 'x'"`
}

func (GadgetMore) TableName() string { return "gadgets" }

// gadgetCopy is a table that does not exist yet.
type gadgetCopy struct {
	ID   uint
	Name string
}

func title(o Order, err error) (string, error) { return o.Title, err }

func orderTitles(os []Order, err error) (string, error) {
	var b strings.Builder
	for _, o := range os {
		b.WriteString(o.Title + "\n")
	}
	return b.String(), err
}

// assoc runs fn on an association of the first customer, which it does not
// load, so that the first statement is the association's own.
func assoc(name string, fn func(*gorm.Association) error) func(*gorm.DB, context.Context) (string, error) {
	return func(db *gorm.DB, _ context.Context) (string, error) {
		return "", fn(db.Model(&Customer{ID: 1}).Association(name))
	}
}

func migrator(fn func(gorm.Migrator) error) func(*gorm.DB, context.Context) (string, error) {
	return func(db *gorm.DB, _ context.Context) (string, error) { return "", fn(db.Migrator()) }
}

// yes runs a method that only says true or false.
func yes(fn func(gorm.Migrator) bool) func(*gorm.DB, context.Context) (string, error) {
	return func(db *gorm.DB, _ context.Context) (string, error) {
		if fn(db.Migrator()) {
			return yesAnswer, nil
		}
		return "", nil
	}
}

// yesAnswer stands for a right answer that names no database.
const yesAnswer = "yes"

func points() []point {
	exec := func(fn func(db *gorm.DB) error) func(*gorm.DB, context.Context) (string, error) {
		return func(db *gorm.DB, _ context.Context) (string, error) { return "", fn(db) }
	}
	query := func(fn func(db *gorm.DB) (string, error)) func(*gorm.DB, context.Context) (string, error) {
		return func(db *gorm.DB, _ context.Context) (string, error) { return fn(db) }
	}
	g := func(fn func(ctx context.Context, o gorm.Interface[Order]) error) func(*gorm.DB, context.Context) (string, error) {
		return func(db *gorm.DB, ctx context.Context) (string, error) { return "", fn(ctx, gorm.G[Order](db)) }
	}
	gq := func(fn func(ctx context.Context, o gorm.Interface[Order]) (string, error)) func(*gorm.DB, context.Context) (string, error) {
		return func(db *gorm.DB, ctx context.Context) (string, error) { return fn(ctx, gorm.G[Order](db)) }
	}
	return []point{
		// Finishers.
		{name: "Create", covers: []string{"DB.Create"}, writes: true, run: exec(func(db *gorm.DB) error { return db.Create(&Order{Title: "new"}).Error })},
		{name: "Create map", writes: true, run: exec(func(db *gorm.DB) error { return db.Model(&Tag{}).Create(map[string]any{"name": "new"}).Error })},
		{name: "Create slice", writes: true, run: exec(func(db *gorm.DB) error { return db.Create(&[]Tag{{Name: "x"}, {Name: "y"}}).Error })},
		{name: "Create with associations", writes: true, run: exec(func(db *gorm.DB) error {
			return db.Create(&Customer{Name: "new", Orders: []Order{{Title: "x"}}, Card: Card{Number: "1"}, Tags: []Tag{{Name: "t"}}, Notes: []Note{{Text: "n"}}}).Error
		})},
		{name: "Create upsert", writes: true, run: exec(func(db *gorm.DB) error {
			return db.Clauses(clause.OnConflict{UpdateAll: true}).Create(&Tag{ID: 1, Name: "new"}).Error
		})},
		{name: "Create returning", writes: true, run: exec(func(db *gorm.DB) error {
			return db.Clauses(clause.Returning{}).Create(&Tag{Name: "new"}).Error
		})},
		{name: "CreateInBatches one", covers: []string{"DB.CreateInBatches"}, writes: true, run: exec(func(db *gorm.DB) error { return db.CreateInBatches(&[]Tag{{Name: "x"}}, 2).Error })},
		{name: "CreateInBatches several", writes: true, noScope: true, run: exec(func(db *gorm.DB) error {
			return db.CreateInBatches(&[]Tag{{Name: "x"}, {Name: "y"}, {Name: "z"}}, 2).Error
		})},
		{name: "Save new", covers: []string{"DB.Save"}, writes: true, run: exec(func(db *gorm.DB) error { return db.Save(&Tag{Name: "new"}).Error })},
		{name: "Save existing", writes: true, run: exec(func(db *gorm.DB) error { return db.Save(&Tag{ID: 1, Name: "new"}).Error })},
		{name: "Save slice", writes: true, run: exec(func(db *gorm.DB) error { return db.Save(&[]Tag{{ID: 1, Name: "new"}}).Error })},
		{name: "First", covers: []string{"DB.First"}, run: query(func(db *gorm.DB) (string, error) { var o Order; err := db.First(&o).Error; return o.Title, err })},
		{name: "Take", covers: []string{"DB.Take"}, run: query(func(db *gorm.DB) (string, error) { var o Order; err := db.Take(&o, 1).Error; return o.Title, err })},
		{name: "Last", covers: []string{"DB.Last"}, run: query(func(db *gorm.DB) (string, error) { var o Order; err := db.Last(&o).Error; return o.Title, err })},
		{name: "Find", covers: []string{"DB.Find"}, run: query(func(db *gorm.DB) (string, error) {
			var os []Order
			err := db.Find(&os).Error
			return orderTitles(os, err)
		})},
		{name: "Find map", run: query(func(db *gorm.DB) (string, error) {
			var m []map[string]any
			err := db.Table("orders").Find(&m).Error
			return fmt.Sprint(m), err
		})},
		{name: "Find locking", run: query(func(db *gorm.DB) (string, error) {
			var o Order
			err := db.Clauses(clause.Locking{Strength: "UPDATE"}).First(&o).Error
			return o.Title, err
		})},
		{name: "Find sub-query", run: query(func(db *gorm.DB) (string, error) {
			var os []Order
			err := db.Where("customer_id IN (?)", db.Session(&gorm.Session{NewDB: true}).Model(&Customer{}).Select("id")).Find(&os).Error
			return orderTitles(os, err)
		})},
		{name: "FindInBatches", covers: []string{"DB.FindInBatches"}, run: query(func(db *gorm.DB) (string, error) {
			var os []Order
			var all strings.Builder
			err := db.FindInBatches(&os, 1, func(tx *gorm.DB, _ int) error {
				all.WriteString(os[0].Title)
				return tx.Find(&Customer{}, 1).Error
			}).Error
			return all.String(), err
		})},
		{name: "FirstOrInit", covers: []string{"DB.FirstOrInit"}, run: query(func(db *gorm.DB) (string, error) {
			var o Order
			err := db.Where("id = ?", 1).FirstOrInit(&o).Error
			return o.Title, err
		})},
		{name: "FirstOrCreate creates", covers: []string{"DB.FirstOrCreate"}, writes: true, run: exec(func(db *gorm.DB) error { return db.FirstOrCreate(&Tag{}, Tag{Name: "new"}).Error })},
		{name: "FirstOrCreate updates", writes: true, run: exec(func(db *gorm.DB) error {
			return db.Where("id = ?", 1).Assign(Tag{Name: "new"}).FirstOrCreate(&Tag{}).Error
		})},
		{name: "Update", covers: []string{"DB.Update"}, writes: true, run: exec(func(db *gorm.DB) error { return db.Model(&Tag{}).Where("id = 1").Update("name", "new").Error })},
		{name: "Updates struct", covers: []string{"DB.Updates"}, writes: true, run: exec(func(db *gorm.DB) error { return db.Model(&Tag{ID: 1}).Updates(Tag{Name: "new"}).Error })},
		{name: "Updates map", writes: true, run: exec(func(db *gorm.DB) error { return db.Model(&Tag{ID: 1}).Updates(map[string]any{"name": "new"}).Error })},
		{name: "UpdateColumn", covers: []string{"DB.UpdateColumn"}, writes: true, run: exec(func(db *gorm.DB) error { return db.Model(&Tag{ID: 1}).UpdateColumn("name", "new").Error })},
		{name: "UpdateColumns", covers: []string{"DB.UpdateColumns"}, writes: true, run: exec(func(db *gorm.DB) error { return db.Model(&Tag{ID: 1}).UpdateColumns(Tag{Name: "new"}).Error })},
		{name: "Update sub-query", writes: true, run: exec(func(db *gorm.DB) error {
			return db.Model(&Tag{}).Where("id = 1").Update("name", db.Session(&gorm.Session{NewDB: true}).Model(&Customer{}).Select("name").Where("id = 1")).Error
		})},
		{name: "Update returning", writes: true, run: exec(func(db *gorm.DB) error {
			return db.Model(&[]Tag{}).Clauses(clause.Returning{}).Where("id = 1").Update("name", "new").Error
		})},
		{name: "Delete soft", covers: []string{"DB.Delete"}, writes: true, run: exec(func(db *gorm.DB) error { return db.Delete(&Order{}, 1).Error })},
		{name: "Delete", writes: true, run: exec(func(db *gorm.DB) error { return db.Unscoped().Delete(&Order{}, 1).Error })},
		{name: "Delete with associations", writes: true, run: exec(func(db *gorm.DB) error { return db.Select("Tags").Delete(&Customer{ID: 1}, "1 = 0").Error })},
		{name: "Count", covers: []string{"DB.Count"}, run: query(func(db *gorm.DB) (string, error) {
			var n int64
			err := db.Model(&Order{}).Count(&n).Error
			return answer(n == 2), err
		})},
		{name: "Pluck", covers: []string{"DB.Pluck"}, run: query(func(db *gorm.DB) (string, error) {
			var ts []string
			err := db.Model(&Order{}).Pluck("title", &ts).Error
			return fmt.Sprint(ts), err
		})},
		{name: "Scan", covers: []string{"DB.Scan"}, run: query(func(db *gorm.DB) (string, error) {
			var o struct{ Title string }
			err := db.Model(&Order{}).Limit(1).Scan(&o).Error
			return o.Title, err
		})},
		{name: "Row", covers: []string{"DB.Row"}, run: query(func(db *gorm.DB) (string, error) {
			var s string
			err := db.Model(&Order{}).Select("title").Limit(1).Row().Scan(&s)
			return s, err
		})},
		{name: "Rows and ScanRows", covers: []string{"DB.Rows", "DB.ScanRows"}, run: query(func(db *gorm.DB) (string, error) {
			rows, err := db.Model(&Order{}).Rows()
			if err != nil {
				return "", err
			}
			defer func() { _ = rows.Close() }()
			var all strings.Builder
			for rows.Next() {
				var o Order
				if err := db.Session(&gorm.Session{NewDB: true}).ScanRows(rows, &o); err != nil {
					return "", err
				}
				all.WriteString(o.Title)
			}
			return all.String(), rows.Err()
		})},
		{name: "Raw", covers: []string{"DB.Raw"}, run: query(func(db *gorm.DB) (string, error) {
			var ts []string
			err := db.Raw("SELECT title FROM orders").Scan(&ts).Error
			return fmt.Sprint(ts), err
		})},
		{name: "Raw Row", run: query(func(db *gorm.DB) (string, error) {
			var s string
			err := db.Raw("SELECT title FROM orders").Row().Scan(&s)
			return s, err
		})},
		{name: "Exec", covers: []string{"DB.Exec"}, writes: true, run: exec(func(db *gorm.DB) error { return db.Exec("UPDATE tags SET name = ?", "new").Error })},
		{name: "Connection", covers: []string{"DB.Connection"}, noRoute: true, noTx: true, run: query(func(db *gorm.DB) (s string, err error) {
			err = db.Connection(func(tx *gorm.DB) error {
				return tx.Model(&Order{}).Select("title").Limit(1).Row().Scan(&s)
			})
			return s, err
		})},
		{name: "Transaction", covers: []string{"DB.Transaction"}, writes: true, noScope: true, run: exec(func(db *gorm.DB) error {
			return db.Transaction(func(tx *gorm.DB) error { return tx.Create(&Tag{Name: "new"}).Error })
		})},
		{name: "Transaction nested", writes: true, noScope: true, run: exec(func(db *gorm.DB) error {
			return db.Transaction(func(tx *gorm.DB) error {
				if err := tx.Create(&Tag{Name: "kept"}).Error; err != nil {
					return err
				}
				err := tx.Transaction(func(tx *gorm.DB) error {
					if err := tx.Create(&Tag{Name: "undone"}).Error; err != nil {
						return err
					}
					return errBoom
				})
				if !errors.Is(err, errBoom) {
					return err
				}
				return nil
			})
		})},
		{name: "Begin", covers: []string{"DB.Begin", "DB.Commit", "DB.Rollback", "DB.SavePoint", "DB.RollbackTo"}, writes: true, noScope: true, noTx: true, run: exec(func(db *gorm.DB) error {
			tx := db.Begin(&sql.TxOptions{})
			if err := tx.Error; err != nil {
				tx.Rollback()
				return err
			}
			tx.Create(&Tag{Name: "kept"})
			tx.SavePoint("sp")
			tx.Create(&Tag{Name: "undone"})
			tx.RollbackTo("sp")
			return tx.Commit().Error
		})},
		{name: "Preload", covers: []string{"DB.Preload"}, run: query(func(db *gorm.DB) (string, error) {
			var c Customer
			err := db.Preload("Orders.Customer").Preload("Tags").Preload("Notes").Preload("Card", "id > ?", 0).First(&c).Error
			if err != nil {
				return "", err
			}
			return c.Orders[0].Customer.Name + c.Tags[0].Name + c.Notes[0].Text + c.Card.Number, nil
		})},
		{name: "Joins", covers: []string{"DB.Joins", "DB.InnerJoins"}, run: query(func(db *gorm.DB) (string, error) {
			var c Customer
			err := db.Joins("Card").InnerJoins("JOIN orders ON orders.customer_id = customers.id").First(&c).Error
			return c.Card.Number, err
		})},
		{name: "AutoMigrate", covers: []string{"DB.AutoMigrate"}, writes: true, run: exec(func(db *gorm.DB) error { return db.AutoMigrate(&GadgetMore{}) })},

		// Associations.
		{name: "Association Find", covers: []string{"DB.Association", "Association.Find"}, run: query(func(db *gorm.DB) (string, error) {
			var os []Order
			err := db.Model(&Customer{ID: 1}).Association("Orders").Find(&os)
			return orderTitles(os, err)
		})},
		{name: "Association Append", covers: []string{"Association.Append"}, writes: true, run: assoc("Orders", func(a *gorm.Association) error { return a.Append(&Order{Title: "new"}) })},
		{name: "Association Append many2many", writes: true, run: assoc("Tags", func(a *gorm.Association) error { return a.Append(&Tag{Name: "new"}) })},
		{name: "Association Append has one", writes: true, run: assoc("Card", func(a *gorm.Association) error { return a.Append(&Card{Number: "new"}) })},
		{name: "Association Replace", covers: []string{"Association.Replace"}, writes: true, run: assoc("Tags", func(a *gorm.Association) error { return a.Replace(&Tag{Name: "new"}) })},
		{name: "Association Delete", covers: []string{"Association.Delete"}, writes: true, run: assoc("Orders", func(a *gorm.Association) error { return a.Delete(&Order{ID: 1}) })},
		{name: "Association Clear", covers: []string{"Association.Clear"}, writes: true, run: assoc("Tags", func(a *gorm.Association) error { return a.Clear() })},
		{name: "Association Clear unscoped", covers: []string{"Association.Unscoped"}, writes: true, run: assoc("Orders", func(a *gorm.Association) error { return a.Unscoped().Clear() })},
		{name: "Association Count", covers: []string{"Association.Count"}, run: query(func(db *gorm.DB) (string, error) {
			a := db.Model(&Customer{ID: 1}).Association("Orders")
			n := a.Count()
			return answer(n == 2), a.Error
		})},

		// Migrator.
		{name: "Migrator AutoMigrate", covers: []string{"DB.Migrator", "Migrator.AutoMigrate"}, writes: true, run: migrator(func(m gorm.Migrator) error { return m.AutoMigrate(&GadgetMore{}) })},
		{name: "CurrentDatabase", covers: []string{"Migrator.CurrentDatabase"}, noError: true, engine: "postgres", run: query(func(db *gorm.DB) (string, error) {
			return answer(db.Migrator().CurrentDatabase() != ""), nil
		})},
		{name: "CreateTable", covers: []string{"Migrator.CreateTable"}, writes: true, run: migrator(func(m gorm.Migrator) error { return m.CreateTable(&gadgetCopy{}) })},
		{name: "DropTable", covers: []string{"Migrator.DropTable"}, writes: true, run: migrator(func(m gorm.Migrator) error { return m.DropTable(&Gadget{}) })},
		{name: "HasTable", covers: []string{"Migrator.HasTable"}, noError: true, run: yes(func(m gorm.Migrator) bool { return m.HasTable(&Gadget{}) })},
		{name: "RenameTable", covers: []string{"Migrator.RenameTable"}, writes: true, run: migrator(func(m gorm.Migrator) error { return m.RenameTable("gadgets", "gadgets_old") })},
		{name: "GetTables", covers: []string{"Migrator.GetTables"}, run: query(func(db *gorm.DB) (string, error) {
			ts, err := db.Migrator().GetTables()
			return answer(strings.Contains(fmt.Sprint(ts), "gadgets")), err
		})},
		{name: "AddColumn", covers: []string{"Migrator.AddColumn"}, writes: true, run: migrator(func(m gorm.Migrator) error { return m.AddColumn(&GadgetMore{}, "Color") })},
		{name: "DropColumn", covers: []string{"Migrator.DropColumn"}, writes: true, ownError: "sqlite", run: migrator(func(m gorm.Migrator) error {
			if err := m.DropConstraint(&Gadget{}, "chk_gadgets_size"); err != nil {
				return err
			}
			return m.DropColumn(&Gadget{}, "size")
		})},
		{name: "AlterColumn", covers: []string{"Migrator.AlterColumn"}, writes: true, engine: "postgres", run: migrator(func(m gorm.Migrator) error { return m.AlterColumn(&GadgetMore{}, "Name") })},
		{name: "MigrateColumn", covers: []string{"Migrator.MigrateColumn", "Migrator.MigrateColumnUnique", "Migrator.ColumnTypes"}, run: query(func(db *gorm.DB) (string, error) {
			m := db.Migrator()
			types, err := m.ColumnTypes(&Gadget{})
			if err != nil {
				return "", err
			}
			stmt := &gorm.Statement{DB: db}
			if err := stmt.Parse(&Gadget{}); err != nil {
				return "", err
			}
			for _, c := range types {
				field := stmt.Schema.LookUpField(c.Name())
				if err := m.MigrateColumn(&Gadget{}, field, c); err != nil {
					return "", err
				}
				if err := m.MigrateColumnUnique(&Gadget{}, field, c); err != nil {
					return "", err
				}
			}
			return answer(len(types) == 3), nil
		})},
		{name: "HasColumn", covers: []string{"Migrator.HasColumn"}, noError: true, run: yes(func(m gorm.Migrator) bool { return m.HasColumn(&Gadget{}, "size") })},
		{name: "RenameColumn", covers: []string{"Migrator.RenameColumn"}, writes: true, run: migrator(func(m gorm.Migrator) error { return m.RenameColumn(&Gadget{}, "size", "length") })},
		{name: "CreateView", covers: []string{"Migrator.CreateView"}, writes: true, run: query(func(db *gorm.DB) (string, error) {
			q := db.Session(&gorm.Session{NewDB: true}).Model(&Gadget{}).Select("name")
			return "", db.Migrator().CreateView("gadgets_view", gorm.ViewOption{Query: q})
		})},
		{name: "DropView", covers: []string{"Migrator.DropView"}, run: query(func(db *gorm.DB) (string, error) {
			err := db.Migrator().DropView("gadgets_view")
			return answer(err == nil), err
		})},
		{name: "CreateConstraint", covers: []string{"Migrator.CreateConstraint"}, writes: true, engine: "postgres", run: migrator(func(m gorm.Migrator) error {
			if err := m.AddColumn(&GadgetMore{}, "Color"); err != nil {
				return err
			}
			return m.CreateConstraint(&GadgetMore{}, "chk_gadgets_color")
		})},
		{name: "DropConstraint", covers: []string{"Migrator.DropConstraint"}, writes: true, ownError: "sqlite", run: migrator(func(m gorm.Migrator) error { return m.DropConstraint(&Gadget{}, "chk_gadgets_size") })},
		{name: "HasConstraint", covers: []string{"Migrator.HasConstraint"}, noError: true, run: yes(func(m gorm.Migrator) bool { return m.HasConstraint(&Gadget{}, "chk_gadgets_size") })},
		{name: "CreateIndex", covers: []string{"Migrator.CreateIndex"}, writes: true, run: migrator(func(m gorm.Migrator) error {
			if err := m.DropIndex(&Gadget{}, "idx_gadgets_name"); err != nil {
				return err
			}
			if err := m.AddColumn(&GadgetMore{}, "Color"); err != nil {
				return err
			}
			return m.CreateIndex(&GadgetMore{}, "idx_gadgets_color")
		})},
		{name: "DropIndex", covers: []string{"Migrator.DropIndex"}, writes: true, run: migrator(func(m gorm.Migrator) error { return m.DropIndex(&Gadget{}, "idx_gadgets_name") })},
		{name: "HasIndex", covers: []string{"Migrator.HasIndex"}, noError: true, run: yes(func(m gorm.Migrator) bool { return m.HasIndex(&Gadget{}, "idx_gadgets_name") })},
		{name: "RenameIndex", covers: []string{"Migrator.RenameIndex"}, writes: true, ownError: "sqlite", run: migrator(func(m gorm.Migrator) error { return m.RenameIndex(&Gadget{}, "idx_gadgets_name", "idx_gadgets_other") })},
		{name: "GetIndexes", covers: []string{"Migrator.GetIndexes"}, run: query(func(db *gorm.DB) (string, error) {
			is, err := db.Migrator().GetIndexes(&Gadget{})
			return answer(len(is) > 0), err
		})},

		// Generics.
		{name: "G Create", covers: []string{"G.Create"}, writes: true, noScope: true, run: g(func(ctx context.Context, o gorm.Interface[Order]) error { return o.Create(ctx, &Order{Title: "new"}) })},
		{name: "G CreateInBatches", covers: []string{"G.CreateInBatches"}, writes: true, noScope: true, run: g(func(ctx context.Context, o gorm.Interface[Order]) error {
			return o.CreateInBatches(ctx, &[]Order{{Title: "x"}, {Title: "y"}}, 1)
		})},
		{name: "G First", covers: []string{"G.First"}, noScope: true, run: gq(func(ctx context.Context, o gorm.Interface[Order]) (string, error) { return title(o.First(ctx)) })},
		{name: "G Last", covers: []string{"G.Last"}, noScope: true, run: gq(func(ctx context.Context, o gorm.Interface[Order]) (string, error) { return title(o.Last(ctx)) })},
		{name: "G Take", covers: []string{"G.Take"}, noScope: true, run: gq(func(ctx context.Context, o gorm.Interface[Order]) (string, error) { return title(o.Take(ctx)) })},
		{name: "G Find", covers: []string{"G.Find"}, noScope: true, run: gq(func(ctx context.Context, o gorm.Interface[Order]) (string, error) {
			return orderTitles(o.Where("id > ?", 0).Find(ctx))
		})},
		{name: "G Find joins and preload", noScope: true, run: gq(func(ctx context.Context, o gorm.Interface[Order]) (string, error) {
			os, err := o.Joins(clause.LeftJoin.Association("Customer"), nil).Preload("Customer.Tags", nil).Find(ctx)
			if err != nil || len(os) == 0 {
				return "", err
			}
			return os[0].Customer.Name + os[0].Customer.Tags[0].Name, nil
		})},
		{name: "G FindInBatches", covers: []string{"G.FindInBatches"}, noScope: true, run: gq(func(ctx context.Context, o gorm.Interface[Order]) (string, error) {
			var all []Order
			err := o.Where("id > 0").FindInBatches(ctx, 1, func(os []Order, _ int) error { all = append(all, os...); return nil })
			return orderTitles(all, err)
		})},
		{name: "G Count", covers: []string{"G.Count"}, noScope: true, run: gq(func(ctx context.Context, o gorm.Interface[Order]) (string, error) {
			n, err := o.Count(ctx, "id")
			return answer(n == 2), err
		})},
		{name: "G Scan", covers: []string{"G.Scan"}, noScope: true, run: gq(func(ctx context.Context, o gorm.Interface[Order]) (string, error) {
			var ts []string
			err := o.Select("title").Scan(ctx, &ts)
			return fmt.Sprint(ts), err
		})},
		{name: "G Row", covers: []string{"G.Row"}, noScope: true, run: gq(func(ctx context.Context, o gorm.Interface[Order]) (s string, err error) {
			err = o.Table("orders").Select("title").Row(ctx).Scan(&s)
			return s, err
		})},
		{name: "G Rows", covers: []string{"G.Rows"}, noScope: true, run: gq(func(ctx context.Context, o gorm.Interface[Order]) (s string, err error) {
			rows, err := o.Table("orders").Select("title").Rows(ctx)
			if err != nil {
				return "", err
			}
			defer func() { _ = rows.Close() }()
			rows.Next()
			return s, errors.Join(rows.Scan(&s), rows.Err())
		})},
		{name: "G Raw", covers: []string{"G.Raw"}, noScope: true, run: gq(func(ctx context.Context, o gorm.Interface[Order]) (string, error) {
			return orderTitles(o.Raw("SELECT * FROM orders").Find(ctx))
		})},
		{name: "G Exec", covers: []string{"G.Exec"}, writes: true, noScope: true, run: g(func(ctx context.Context, o gorm.Interface[Order]) error {
			return o.Exec(ctx, "UPDATE tags SET name = ?", "new")
		})},
		{name: "G Update", covers: []string{"G.Update"}, writes: true, noScope: true, run: g(func(ctx context.Context, o gorm.Interface[Order]) error {
			_, err := o.Where("id = 1").Update(ctx, "title", "new")
			return err
		})},
		{name: "G Updates", covers: []string{"G.Updates"}, writes: true, noScope: true, run: g(func(ctx context.Context, o gorm.Interface[Order]) error {
			_, err := o.Where("id = 1").Updates(ctx, Order{Title: "new"})
			return err
		})},
		{name: "G Delete", covers: []string{"G.Delete"}, writes: true, noScope: true, run: g(func(ctx context.Context, o gorm.Interface[Order]) error {
			_, err := o.Where("id = 1").Delete(ctx)
			return err
		})},
		{name: "G Set Create", covers: []string{"G.Set", "Set.Create"}, writes: true, noScope: true, run: g(func(ctx context.Context, o gorm.Interface[Order]) error {
			return o.Set(clause.Assignment{Column: clause.Column{Name: "title"}, Value: "new"}).Create(ctx)
		})},
		{name: "G Set Update", covers: []string{"Set.Update"}, writes: true, noScope: true, run: g(func(ctx context.Context, o gorm.Interface[Order]) error {
			_, err := o.Where("id = 1").Set(clause.Assignment{Column: clause.Column{Name: "title"}, Value: "new"}).Update(ctx)
			return err
		})},
		{name: "G association", writes: true, noScope: true, run: func(db *gorm.DB, ctx context.Context) (string, error) {
			_, err := gorm.G[Customer](db).Where("id = 1").Set(clause.Association{Association: "Orders", Type: clause.OpDelete}).Update(ctx)
			return "", err
		}},
	}
}

func answer(ok bool) string {
	if ok {
		return yesAnswer
	}
	return ""
}

// Methods of GORM that reach no database: chain methods, settings, and those
// that are shown above under another's name. No driver here has TableType.
var unreaching = map[string]bool{}

func init() {
	for _, name := range strings.Fields(`
		DB.AddError DB.Assign DB.Attrs DB.Callback DB.Clauses DB.DB DB.Debug DB.Distinct DB.Get DB.Group DB.Having
		DB.InstanceGet DB.InstanceSet DB.Limit DB.MapColumns DB.Model DB.Not DB.Offset DB.Omit DB.Or DB.Order DB.Scopes DB.Select
		DB.Session DB.Set DB.SetupJoinTable DB.Table DB.ToSQL DB.Unscoped DB.Use DB.Where DB.WithContext
		DB.AfterInitialize DB.Apply DB.BindVarTo DB.DataTypeOf DB.DefaultValueOf DB.Explain DB.Initialize DB.Name DB.QuoteTo
		DB.RollbackTo DB.SavePoint DB.Translate
		Migrator.FullDataTypeOf Migrator.GetTypeAliases Migrator.TableType
		G.Build G.Distinct G.Group G.Having G.Joins G.Limit G.MapColumns G.Not G.Offset G.Omit G.Or G.Order G.Preload G.Scopes G.Select G.Table G.Where
	`) {
		unreaching[name] = true
	}
}

// TestEntryPointsComplete fails when GORM has a method that the list lacks: a
// new verb is a new line in points.
func TestEntryPointsComplete(t *testing.T) {
	covered := map[string]bool{}
	for _, p := range points() {
		for _, c := range p.covers {
			covered[c] = true
		}
	}
	for name, typ := range map[string][]reflect.Type{
		"DB":          {reflect.TypeFor[*gorm.DB]()},
		"Association": {reflect.TypeFor[*gorm.Association]()},
		"Migrator":    {reflect.TypeFor[gorm.Migrator]()},
		"G": {reflect.TypeFor[gorm.Interface[Order]](), reflect.TypeFor[gorm.CreateInterface[Order]](),
			reflect.TypeFor[gorm.ChainInterface[Order]](), reflect.TypeFor[gorm.ExecInterface[Order]]()},
		"Set": {reflect.TypeFor[gorm.SetCreateOrUpdateInterface[Order]](), reflect.TypeFor[gorm.SetUpdateOnlyInterface[Order]]()},
	} {
		for _, typ := range typ {
			for i := range typ.NumMethod() {
				method := name + "." + typ.Method(i).Name
				if !covered[method] && !unreaching[method] {
					t.Errorf("%s is neither in points nor in unreaching", method)
				}
			}
		}
	}
	for method := range covered {
		name, m, _ := strings.Cut(method, ".")
		require.NotEmpty(t, name)
		require.NotEmpty(t, m)
	}
}
