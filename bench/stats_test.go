package bench

import (
	"context"
	"fmt"
	"testing"

	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// BenchmarkStats is one snapshot, by the number of open pools: what a scrape
// costs.
func BenchmarkStats(b *testing.B) {
	for _, n := range []int{100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			db := open(b, gorm.Config{})
			static := tenancy.Static{}
			for i := range n {
				id := fmt.Sprintf("t%d", i)
				static[id] = tenancy.Database{Connector: &null{name: id}, Server: fmt.Sprintf("server%d", i%10)}
			}
			plugin := tenancy.New(tenancy.Config{Resolver: static, Pools: tenancy.Limits{MaxPools: n}})
			if err := db.Use(plugin); err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() {
				if err := plugin.Close(context.Background()); err != nil {
					b.Error(err)
				}
			})
			for id := range static {
				if err := db.WithContext(tenant.Ctx(context.Background(), id)).Exec("SELECT 1").Error; err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				if s := plugin.Stats(); s.Pools != n {
					b.Fatalf("%d pools", s.Pools)
				}
			}
		})
	}
}
