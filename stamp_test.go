package tenancy_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
)

// deep embeds the stamp two levels down.
type base struct {
	ID uint
	tenancy.Stamp
}

type deep struct {
	base
	Title string
}

func (deep) TableName() string { return "orders" }

func TestStampIsSet(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open()
		from := func(s tenancy.Stamp) string { id, _ := s.Tenant(); return id }

		var o Order
		require.NoError(t, e.in(idA).First(&o).Error)
		require.Equal(t, idA, from(o.Stamp))
		var ps []*Order
		require.NoError(t, e.in(idB).Find(&ps).Error)
		require.Equal(t, idB, from(ps[1].Stamp))
		var c Customer
		require.NoError(t, e.in(idB).Preload("Orders").First(&c).Error)
		require.Equal(t, idB, from(c.Orders[1].Stamp))
		var card cardOfOrder
		require.NoError(t, e.in(idA).Joins("Order").First(&card).Error)
		require.Equal(t, idA, from(card.Order.Stamp), "loaded by a join")
		created := Order{Title: "new"}
		require.NoError(t, e.in(idB).Create(&created).Error)
		require.Equal(t, idB, from(created.Stamp))
		batch := []Order{{Title: "x"}, {Title: "y"}}
		require.NoError(t, tenancy.For(e.db, idA).CreateInBatches(&batch, 1).Error)
		require.Equal(t, idA, from(batch[1].Stamp))
		require.NoError(t, e.in(idA).Transaction(func(tx *gorm.DB) error { return tx.Last(&o).Error }))
		require.Equal(t, idA, from(o.Stamp))
		g, err := gorm.G[Order](e.db).First(e.ctx(idB))
		require.NoError(t, err)
		require.Equal(t, idB, from(g.Stamp))
		var d deep
		require.NoError(t, e.in(idA).First(&d).Error)
		require.Equal(t, idA, from(d.Stamp))

		text, err := json.Marshal(Order{Title: "x", Stamp: o.Stamp})
		require.NoError(t, err)
		require.NotContains(t, string(text), idA)
		require.NotContains(t, string(text), "Stamp")
	})
}

// cardOfOrder is a card that belongs to the order with its own id.
type cardOfOrder struct {
	ID    uint
	Order *Order `gorm:"foreignKey:ID;references:ID;constraint:-"`
}

func (cardOfOrder) TableName() string { return "cards" }

// Shared is embedded through a pointer, and so is its Stamp.
type Shared struct{ *tenancy.Stamp }

type pointing struct {
	ID    uint
	Title string
	*Shared
}

func (pointing) TableName() string { return "orders" }

func TestStampThroughPointers(t *testing.T) {
	e := openSQLite(t)
	var o pointing
	require.NoError(t, e.in(idA).First(&o).Error)
	id, ok := o.Tenant()
	require.True(t, ok)
	require.Equal(t, idA, id)
	before := e.dumps()
	o.Title = "stolen"
	require.ErrorIs(t, e.in(idB).Save(&o).Error, tenancy.ErrWrongTenant)
	require.Equal(t, before, e.dumps())
	require.NoError(t, e.in(idA).Save(&o).Error)
	require.NoError(t, e.in(idB).Create(&pointing{Title: "fresh"}).Error)
}

func TestStampRefusesStrangers(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open()
		var o Order
		var os []Order
		var d deep
		require.NoError(t, e.in(idA).First(&o).Error)
		require.NoError(t, e.in(idA).Find(&os).Error)
		require.NoError(t, e.in(idA).First(&d).Error)
		b := e.in(idB)
		before := e.state()
		for name, write := range map[string]func() error{
			"Save":               func() error { o.Title = "stolen"; return b.Save(&o).Error },
			"Save value":         func() error { return b.Save(o).Error },
			"Save slice":         func() error { return b.Save(&os).Error },
			"Save deep":          func() error { return b.Save(&d).Error },
			"Create":             func() error { return b.Create(&o).Error },
			"Updates":            func() error { return b.Updates(&o).Error },
			"Model Update":       func() error { return b.Model(&o).Update("title", "stolen").Error },
			"Model UpdateColumn": func() error { return b.Model(&o).UpdateColumn("title", "stolen").Error },
			"Model slice":        func() error { return b.Model(&os).Updates(map[string]any{"title": "stolen"}).Error },
			"Delete":             func() error { return b.Delete(&o).Error },
			"Delete slice":       func() error { return b.Unscoped().Delete(&os).Error },
			"mixed slice":        func() error { return b.Save([]*Order{{Title: "mine"}, &o}).Error },
			"has many":           func() error { return b.Create(&Customer{Name: "x", Orders: []Order{o}}).Error },
			"Association Append": func() error { return b.Model(&Customer{ID: 1}).Association("Orders").Append(&o) },
			"belongs to main":    func() error { return e.main().Save(&o).Error },
			"generics":           func() error { return gorm.G[Order](e.db).Create(e.ctx(idB), &o) },
			"in a transaction": func() error {
				err := b.Transaction(func(tx *gorm.DB) error { tx.Save(&o); return nil })
				return err
			},
			"For": func() error { return tenancy.For(e.db, idB).Save(&o).Error },
		} {
			err := write()
			require.ErrorIs(t, err, tenancy.ErrWrongTenant, name)
			require.Empty(t, e.state().changed(before), name)
		}
		o = Order{} // the refused ones have changed its keys
		require.NoError(t, e.in(idA).First(&o).Error)
		require.NoError(t, e.in(idA).Save(&o).Error, "at home it may be saved")
		o.Stamp = tenancy.Stamp{}
		require.NoError(t, b.Save(&o).Error, "and anywhere once the stamp is taken off on purpose")
	})
}
