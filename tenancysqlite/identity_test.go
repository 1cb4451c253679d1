package tenancysqlite

import (
	"errors"
	"testing"

	dialect "github.com/glebarez/sqlite"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenant"
)

func TestIdentityThroughThePlugin(t *testing.T) {
	s := newServer(t, t.TempDir())
	static := tenancy.Static{}
	for _, name := range []string{"main", "right", "wronguid", "wronggen", "notable", "norow"} {
		sess := begin(t, s, name)
		must(t, sess.Create(t.Context(), ""))
		adminExec(t, sess, "CREATE TABLE a (id integer)")
		if name != "notable" {
			must(t, sess.Mark(t.Context(), meta(name, 2)))
		}
		if name == "norow" {
			adminExec(t, sess, "DELETE FROM _tenant_meta")
		}
		must(t, sess.Open(t.Context()), sess.Close())
		d, err := s.Database(name)
		must(t, err)
		d.Identity = tenancy.Identity{UID: name, Generation: 2}
		switch name {
		case "wronguid":
			d.Identity.UID = "u9"
		case "wronggen":
			d.Identity.Generation = 1
		}
		static[name] = d
	}
	db, err := gorm.Open(&dialect.Dialector{Conn: app(t, s, "main")}, &gorm.Config{Logger: logger.Discard})
	must(t, err)
	plugin := tenancy.New(tenancy.Config{Resolver: static, Engine: Engine{}})
	must(t, db.Use(plugin))
	for name := range static {
		err := db.WithContext(tenant.Ctx(t.Context(), name)).Exec("INSERT INTO a VALUES (1)").Error
		if good := name == "right" || name == "main"; good != (err == nil) || !good && !errors.Is(err, tenancy.ErrWrongDatabase) {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, plugin.Close(t.Context()))
	for name := range static {
		sess, want := begin(t, s, name), 0
		if name == "right" || name == "main" {
			want = 1
		}
		if n := count(t, sess, "SELECT count(*) FROM a"); n != want {
			t.Errorf("%s: %d rows", name, n)
		}
		if name != "main" {
			must(t, sess.Fence(t.Context(), 0)) // the connection was closed
		}
	}
}
