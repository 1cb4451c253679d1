package tenancystatus_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancystatus"
)

func TestNewRefuses(t *testing.T) {
	plugin := tenancy.New(tenancy.Config{Resolver: tenancy.Static{}})
	for want, cfg := range map[string]tenancystatus.Config{
		"tenancystatus: Config.Plugin is not set; set what db.Use was given":                                                  {},
		"tenancystatus: Config.Servers is negative: -1; leave it out for 64":                                                  {Plugin: plugin, Servers: -1},
		"tenancystatus: Config.Interval is 99ms; it must be at least 100ms":                                                   {Plugin: plugin, Interval: 99 * time.Millisecond},
		"tenancystatus: Config.Interval is -1s; it must be at least 100ms":                                                    {Plugin: plugin, Interval: -time.Second},
		"tenancystatus: Config.History is 1s, less than Config.Interval, 2s; there would be nothing to show":                  {Plugin: plugin, History: time.Second},
		"tenancystatus: Config.History is 3h0m0s, more than 3600 times Config.Interval, 2s; shorten it or raise the interval": {Plugin: plugin, History: 3 * time.Hour},
	} {
		page, err := tenancystatus.New(cfg)
		require.EqualError(t, err, want)
		require.Nil(t, page)
	}
}

func TestDefaults(t *testing.T) {
	page := newPage(t, tenancystatus.Config{Plugin: newApp(t, 0).plugin})
	r := page.Report()
	require.NotEmpty(t, r.Name)
	require.Equal(t, 2.0, r.IntervalSeconds)
	require.Len(t, r.History, 1, "the first sample is there at once")
}
