package tenancystatus_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gorm.io/driver/postgres"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/notes"
	"github.com/gorm-tenancy/tenancy/tenancypg"
	"github.com/gorm-tenancy/tenancy/tenancystatus"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// Nothing of a DSN but the server's name is shown, also of one that fails: nobody
// listens on port 1.
func TestNoSecrets(t *testing.T) {
	const dsn = "postgres://clerk:hunter2@127.0.0.1:1/secretdb?sslmode=disable&application_name=hush"
	db, plugin := notes.Open(t, postgres.Open(dsn), tenancy.Config{Engine: tenancypg.Engine{}, Resolver: tenancy.Static{"acme": {DSN: dsn}}})
	page := newPage(t, tenancystatus.Config{Plugin: plugin, Interval: 100 * time.Millisecond, History: time.Minute})
	require.Eventually(t, func() bool {
		err := db.WithContext(tenant.Ctx(t.Context(), "acme")).Exec("SELECT 1").Error
		require.Error(t, err)
		h := page.Report().History
		last := h[len(h)-1]
		return len(last.Servers) == 1 && last.Servers[0].Down
	}, 30*time.Second, time.Millisecond)

	r := page.Report()
	require.True(t, r.Servers[0].Down)
	require.WithinDuration(t, time.Now(), *r.Servers[0].DownSince, 30*time.Second)
	require.Positive(t, r.Servers[0].Recent.DialsFailed)
	html, js := get(page, "GET", "/").Body.String(), get(page, "GET", "/?format=json").Body.String()
	require.Contains(t, html, "127.0.0.1:1 is down since")
	require.Contains(t, html, ">Down</span>")
	for _, body := range []string{html, js} {
		require.Contains(t, body, "127.0.0.1:1")
		require.Contains(t, body, "acme")
		for _, secret := range []string{"hunter2", "clerk", "secretdb", "hush", "sslmode", "postgres:"} {
			require.False(t, strings.Contains(body, secret), secret)
		}
	}
}
