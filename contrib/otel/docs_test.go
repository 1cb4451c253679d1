package tenancyotel_test

import (
	"os"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
	tenancyotel "github.com/gorm-tenancy/tenancy/contrib/otel"
	"github.com/gorm-tenancy/tenancy/internal/notes"
)

// nameRE finds the metrics in the tables' second column.
var nameRE = regexp.MustCompile("(?m)^\\| `tenancy_[a-z_]+` \\| `(tenancy\\.[a-z_.]+)`")

// TestDocs holds the page's tables against the instruments.
func TestDocs(t *testing.T) {
	provider, reader := metering(t)
	observer, err := tenancyotel.NewObserver(tenancyotel.Options{MeterProvider: provider})
	require.NoError(t, err)
	db, plugin := open(t, tenancy.Config{Observer: observer}, "acme")
	_, err = tenancyotel.Metrics(plugin, tenancyotel.Options{MeterProvider: provider})
	require.NoError(t, err)
	require.NoError(t, notes.Ask(db, "acme"))
	observer.Observe(tenancy.Event{Kind: tenancy.EventWaited, Server: "files"})

	text, err := os.ReadFile("../../docs/observability.md")
	require.NoError(t, err)
	_, want := read(t, reader)
	rows := map[string]string{}
	for _, m := range nameRE.FindAllStringSubmatch(string(text), -1) {
		rows[m[1]] = want[m[1]]
	}
	require.Equal(t, want, rows)
}
