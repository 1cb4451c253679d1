package tenancystatus_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"

	"github.com/glebarez/sqlite"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancysqlite"
	"github.com/gorm-tenancy/tenancy/tenancystatus"
	"github.com/gorm-tenancy/tenancy/tenant"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// The page is behind the application's own authentication. A program reads the
// same figures as JSON.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "tenancystatus-")
	must(err)
	defer os.RemoveAll(dir)
	must(tenancysqlite.Create(ctx, filepath.Join(dir, "acme.db")))

	db, err := gorm.Open(sqlite.Open(filepath.Join(dir, "main.db")), &gorm.Config{})
	must(err)
	main, err := db.DB()
	must(err)
	defer main.Close()
	plugin := tenancy.New(tenancy.Config{
		Engine:   tenancysqlite.Engine{},
		Resolver: tenancy.Static{"acme": {DSN: tenancysqlite.DSN(filepath.Join(dir, "acme.db")), Server: "files"}},
	})
	must(db.Use(plugin))
	defer plugin.Close(ctx)

	status, err := tenancystatus.New(tenancystatus.Config{Plugin: plugin, Name: "app-1"})
	must(err)
	defer status.Close()
	mux := http.NewServeMux()
	mux.Handle("/admin/tenancy", requireOperator(status))
	server := httptest.NewServer(mux)
	defer server.Close()

	must(db.WithContext(tenant.Ctx(ctx, "acme")).Exec("SELECT 1").Error)

	for _, token := range []string{"", "operator's"} {
		req, err := http.NewRequest(http.MethodGet, server.URL+"/admin/tenancy?format=json", nil)
		must(err)
		req.Header.Set("Authorization", token)
		res, err := server.Client().Do(req)
		must(err)
		fmt.Println(res.Status)
		if res.StatusCode == http.StatusOK {
			var report tenancystatus.Report
			must(json.NewDecoder(res.Body).Decode(&report))
			for _, s := range report.Servers {
				fmt.Printf("%s: %d of %d connections, %d callers wait\n", s.Server, s.Conns, s.MaxConns, s.Waiting)
			}
		}
		must(res.Body.Close())
	}
	// Output:
	// 403 Forbidden
	// 200 OK
	// files: 1 of 256 connections, 0 callers wait
}

// requireOperator stands for the authentication that the application has.
func requireOperator(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "operator's" {
			http.Error(w, "operators only", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}
