package tenancytest_test

import (
	"context"
	"embed"
	"fmt"
	"os"
	"testing"
	"time"

	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancytest"
	"github.com/gorm-tenancy/tenancy/tenancytest/testpg"
	"github.com/gorm-tenancy/tenancy/tenancytest/testsqlite"
)

var kit = tenancytest.New(tenancytest.Config{
	Backend:    testsqlite.Backend{},
	Migrator:   tenancytest.AutoMigrate(&Order{}, &Line{}),
	MainModels: []any{&Plan{}},
})

// A package's tests share a Kit, and each has an Env.
func Example() {
	_ = func(m *testing.M) { // TestMain
		os.Exit(kit.Run(m))
	}
	_ = func(t *testing.T) { // TestOrders
		t.Parallel()
		env := kit.Env(t)
		ctx := env.Tenant("acme")
		if err := env.DB.WithContext(ctx).Create(&Order{Title: "anvil"}).Error; err != nil {
			t.Fatal(err)
		}
		var got []Order
		if err := env.DB.WithContext(ctx).Find(&got).Error; err != nil {
			t.Fatal(err)
		}
		tenancytest.Equal(t, []Order{{Title: "anvil"}}, got, tenancytest.Ignore("ID"))
	}
}

//go:embed *_test.go
var migrations embed.FS

// On PostgreSQL, with the application's own settings. The fingerprint lets all
// packages and all runs share the templates.
func ExampleNew() {
	_ = tenancytest.New(tenancytest.Config{
		Backend:     testpg.Backend{},
		Migrator:    orders(func() {}), // what the application migrates its tenants with
		Fingerprint: tenancytest.HashFS(migrations),
		GORM:        func() *gorm.Config { return &gorm.Config{TranslateError: true} },
		Plugin: func(c *tenancy.Config) {
			c.Pools.MaxConnsPerTenant = 2
		},
	})
}

// An application that opens its database and makes its plugin by itself.
func ExampleEnv_Dialector() {
	_ = func(t *testing.T) {
		env := kit.Env(t)
		db, err := gorm.Open(env.Dialector(), &gorm.Config{})
		if err != nil {
			t.Fatal(err)
		}
		p := tenancy.New(tenancy.Config{Resolver: env, Engine: env.Engine(), MainModels: []any{&Plan{}}})
		if err := db.Use(p); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.Close(context.Background()) })
		_ = db.WithContext(env.Tenant("acme"))
	}
}

// printer is a TB that prints, where there is no test.
type printer struct{ *testing.T }

func (printer) Helper()                           {}
func (printer) Errorf(format string, args ...any) { fmt.Printf(format+"\n", args...) }

func ExampleEqual() {
	var t printer // in a test, its *testing.T
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	type Order struct {
		gorm.Model
		Item string
		At   time.Time
		tenancy.Stamp
	}
	want := []Order{{Item: "anvil", At: at}}
	got := []Order{
		{Model: gorm.Model{ID: 1}, Item: "anvil", At: at.In(time.FixedZone("", 3600))},
		{Model: gorm.Model{ID: 2}, Item: "rocket"},
	}
	tenancytest.Equal(t, want, got[:1], tenancytest.Ignore("ID"), tenancytest.IgnoreTimestamps())
	tenancytest.Equal(t, want, got, tenancytest.IgnoreTimestamps())
	// Output:
	// tenancytest: not equal:
	//   the value: want length 1, got 2
	//   [0].ID: want 0, got 1
	//   [1]: not wanted: {ID:2 Item:"rocket"}
}
