package tenancy_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// TestStress evicts pools all the time under all kinds of use. Every row that
// is written carries its tenant, and every row that is read is checked.
func TestStress(t *testing.T) {
	for name, tc := range map[string]struct{ tenants, workers, rounds int }{
		"sqlite":   {12, 16, 100},
		"postgres": {6, 12, 80},
	} {
		t.Run(name, func(t *testing.T) {
			ids := make([]string, tc.tenants)
			for i := range ids {
				ids[i] = fmt.Sprintf("tenant-%d", i)
			}
			open := openSQLite
			if name == "postgres" {
				open = openPostgres
			}
			e := open(t, withTenants(ids...), withConfig(func(c *tenancy.Config) {
				c.Pools.MaxPools = 2
				c.Pools.MaxConnsPerTenant = 3
			}))
			stress(t, e, ids, tc.workers, tc.rounds)
		})
	}
}

func stress(t *testing.T, e *env, ids []string, workers, rounds int) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var wg, evictor sync.WaitGroup
	turns := make(chan struct{}, workers) // one for each piece of work
	evictor.Go(func() {
		for range turns {
			e.plugin.Evict(ids[rand.IntN(len(ids))])
		}
	})
	written := map[string]*atomic.Int64{}
	for _, id := range ids {
		written[id] = &atomic.Int64{}
	}
	for range workers {
		wg.Go(func() {
			for range rounds {
				turns <- struct{}{}
				id := ids[rand.IntN(len(ids))]
				n, err := stressOnce(ctx, e, id)
				written[id].Add(n)
				if err != nil {
					t.Errorf("%s: %v", id, err)
					return
				}
			}
		})
	}
	wg.Wait()
	close(turns)
	evictor.Wait()
	for _, id := range ids {
		tags := e.strings(id, "SELECT name FROM tags WHERE name NOT LIKE 'tag of %'")
		require.EqualValues(t, written[id].Load(), len(tags), id)
		for _, tag := range tags {
			require.Equal(t, "of "+id, tag)
		}
	}
	require.Equal(t, []string{"tag of main"}, e.dump(mainName)["tags"])
	s := e.plugin.Stats()
	require.LessOrEqual(t, s.Pools, 2)
	require.Zero(t, s.InUse)
	require.Positive(t, s.Evicted[tenancy.CauseCapacity])
	require.Positive(t, s.Evicted[tenancy.CauseEvicted])
}

// stressOnce does one piece of work and returns how many tags it left.
func stressOnce(ctx context.Context, e *env, id string) (int64, error) {
	ctx = tenant.Ctx(ctx, id)
	db := e.db.WithContext(ctx)
	check := func(got string) error {
		if !strings.HasSuffix(got, " of "+id) {
			return fmt.Errorf("read %q", got)
		}
		return nil
	}
	tag := Tag{Name: "of " + id}
	switch rand.IntN(6) {
	case 0:
		var o Order
		if err := db.Preload("Customer").First(&o).Error; err != nil {
			return 0, err
		}
		return 0, errors.Join(check(o.Title), check(o.Customer.Name))
	case 1:
		return 1, db.Create(&tag).Error
	case 2: // a transaction over an eviction
		return 2, db.Transaction(func(tx *gorm.DB) error {
			if err := tx.Create(&tag).Error; err != nil {
				return err
			}
			e.plugin.Evict(id)
			var c Customer
			if err := tx.First(&c).Error; err != nil {
				return err
			}
			return errors.Join(check(c.Name), tx.Create(&Tag{Name: "of " + id}).Error)
		})
	case 3: // and one that is rolled back
		err := db.Transaction(func(tx *gorm.DB) error {
			if err := tx.Create(&tag).Error; err != nil {
				return err
			}
			e.plugin.Evict(id)
			return errBoom
		})
		if errors.Is(err, errBoom) {
			err = nil
		}
		return 0, err
	case 4: // open Rows over an eviction
		rows, err := db.Model(&Order{}).Select("title").Rows()
		if err != nil {
			return 0, err
		}
		defer func() { _ = rows.Close() }()
		n := 0
		for rows.Next() {
			if n++; n == 1 {
				e.plugin.Evict(id)
			}
			var title string
			if err := rows.Scan(&title); err != nil {
				return 0, err
			}
			if err := check(title); err != nil {
				return 0, err
			}
		}
		if err := rows.Err(); err != nil || n != 2 {
			return 0, fmt.Errorf("%d rows: %w", n, err)
		}
		return 0, rows.Close()
	default:
		var name string
		err := tenancy.Conn(ctx, e.db, func(c *sql.Conn) error {
			e.plugin.Evict(id)
			return c.QueryRowContext(ctx, "SELECT name FROM customers").Scan(&name)
		})
		if err != nil {
			return 0, err
		}
		return 0, check(name)
	}
}

// One tenant more than there may be pools: nobody waits for another's.
func TestMoreTenantsThanPools(t *testing.T) {
	e := openSQLite(t, withTenants("a", "b", "c"), withConfig(func(c *tenancy.Config) { c.Pools.MaxPools = 2 }))
	var held []*gorm.DB
	for _, id := range []string{"a", "b", "c"} {
		tx := e.in(id).Begin()
		require.NoError(t, tx.Error)
		require.NoError(t, tx.Create(&Tag{Name: "of " + id}).Error)
		held = append(held, tx)
	}
	require.LessOrEqual(t, e.plugin.Stats().Pools, 2)
	for i, id := range []string{"a", "b", "c"} {
		require.NoError(t, held[i].Commit().Error)
		require.Equal(t, []string{"tag of " + id, "of " + id}, e.dump(id)["tags"])
	}
}

func TestDrainWaitsForTransaction(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open()
		tx := e.in(idA).Begin()
		require.NoError(t, tx.Error)
		require.NoError(t, tx.Create(&Tag{Name: "x"}).Error)

		ended, cancel := context.WithCancelCause(t.Context())
		cancel(errBoom)
		err := e.plugin.Drain(ended, idA)
		require.ErrorIs(t, err, errBoom)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorContains(t, err, "tenant acme: 1 connections are still in use")
		require.NoError(t, e.plugin.Drain(t.Context(), idB), "another tenant")

		drained := make(chan error, 1)
		go func() { drained <- e.plugin.Drain(context.Background(), idA) }()
		require.NoError(t, tx.First(&Tag{}).Error)
		select {
		case err := <-drained:
			t.Fatalf("Drain returned during the transaction: %v", err)
		default:
		}
		require.NoError(t, tx.Commit().Error)
		require.NoError(t, <-drained)
		require.Zero(t, e.plugin.Stats().Conns)
		require.Equal(t, []string{"tag of acme", "x"}, e.dump(idA)["tags"])
		require.NoError(t, e.in(idA).First(&Tag{}).Error, "opened again")
	})
}

// A tenant whose resolver or server does not answer delays no other one.
func TestSlowTenantDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		db, plugin := bubbleDB(t, tenancy.Config{
			Pools: tenancy.Limits{MaxPools: 2},
			Resolver: tenancy.ResolverFunc(func(_ context.Context, id string) (tenancy.Database, error) {
				switch id {
				case "resolver":
					<-hang
				case "server":
					return tenancy.Database{Connector: &hanging{hang: hang}}, nil
				}
				return tenancy.Database{Connector: &unreachable{id}}, nil
			}),
		})
		var wg sync.WaitGroup
		for _, id := range []string{"resolver", "server"} {
			wg.Go(func() {
				if err := db.WithContext(ctxOf(id)).Exec("x").Error; !errors.Is(err, errBoom) {
					t.Errorf("%s: %v", id, err)
				}
			})
		}
		synctest.Wait()
		began := time.Now()
		for i := range 20 {
			require.ErrorIs(t, db.WithContext(ctxOf(fmt.Sprint(i))).Exec("x").Error, errBoom)
		}
		require.Zero(t, time.Since(began))
		require.True(t, plugin.Evict("server"))
		require.Zero(t, time.Since(began))
		close(hang)
		wg.Wait()
	})
}
