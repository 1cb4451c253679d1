package enginetest

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
)

// three makes three databases, and GORM with a tenant of the same name for
// each.
func (s *suite) three() (*gorm.DB, []string) {
	s.Helper()
	databases := map[string]tenancy.Database{}
	var names []string
	for i := range 3 {
		name := s.database()
		id := fmt.Sprintf("t%d", i)
		databases[id] = tenancy.Database{DSN: s.DSN(s.place(name))}
		names = append(names, name)
	}
	return s.tenants(databases), names
}

// routes: many callers of several tenants at once, and each tenant's rows are in
// its own database.
func (s *suite) routes() {
	db, names := s.three()
	const workers, rounds = 6, 5
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for r := range rounds {
				for i := range names {
					id := fmt.Sprintf("t%d", (i+w)%len(names))
					name := names[(i+w)%len(names)]
					tx := s.in(db, id)
					var item Item
					if err := tx.First(&item, 1).Error; err != nil || item.Owner != name {
						s.Errorf("tenant %s reads the row of %q, %v; want %q", id, item.Owner, err, name)
						return
					}
					item = Item{ID: int64(10 + w*rounds + r), Owner: name}
					if err := tx.Create(&item).Error; err != nil {
						s.Errorf("tenant %s: %v", id, err)
						return
					}
				}
			}
		})
	}
	s.ends("what the callers do", all.Wait)
	for i, name := range names {
		owners := s.owners(name)
		if len(owners) != 1+workers*rounds || slices.ContainsFunc(owners, func(o string) bool { return o != name }) {
			s.Errorf("tenant t%d has %d rows, want %d; of %q", i, len(owners), 1+workers*rounds, slices.Compact(owners))
		}
	}
}

var errRollback = errors.New("roll back")

// transactions: all or nothing, seen from outside.
func (s *suite) transactions() {
	db, names := s.three()
	add := func(id int64, then error) func(*gorm.DB) error {
		return func(tx *gorm.DB) error {
			if err := tx.Create(&Item{ID: id, Owner: names[0]}).Error; err != nil {
				return err
			}
			return then
		}
	}
	ids := func(want ...int64) {
		s.Helper()
		var got []int64
		s.must(s.gorm(s.raw(names[0])).Model(&Item{}).Order("id").Pluck("id", &got).Error)
		if !slices.Equal(got, want) {
			s.Errorf("the database has the rows %v, want %v", got, want)
		}
	}
	one := s.in(db, "t0")
	s.must(one.Transaction(add(2, nil)))
	ids(1, 2)
	if err := one.Transaction(add(3, errRollback)); !errors.Is(err, errRollback) {
		s.Errorf("a transaction that is rolled back: %v", err)
	}
	ids(1, 2)
	s.must(one.Transaction(func(tx *gorm.DB) error {
		if err := tx.Transaction(add(4, errRollback)); !errors.Is(err, errRollback) { // a savepoint
			s.Errorf("a savepoint that is rolled back: %v", err)
		}
		return tx.Transaction(add(5, nil))
	}))
	ids(1, 2, 5)
	func() {
		defer func() { _ = recover() }()
		_ = one.Transaction(func(tx *gorm.DB) error {
			s.must(add(6, nil)(tx))
			panic("in a transaction")
		})
	}()
	ids(1, 2, 5)
	for _, name := range names[1:] {
		if owners := s.owners(name); !slices.Equal(owners, []string{name}) {
			s.Errorf("another tenant's database has rows of %q", owners)
		}
	}
}
