package tenancystatus

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/gorm-tenancy/tenancy"
)

// maxSamples bounds Config.History / Config.Interval.
const maxSamples = 3600

// minInterval is the least Config.Interval: it is also how often a page that is
// open asks.
const minInterval = 100 * time.Millisecond

// Config says whose figures are shown and how much of them. Only Plugin is
// needed.
type Config struct {
	// Plugin is whose figures are shown. Required.
	Plugin *tenancy.Plugin
	// Name says which process it is, at the top of the page: there is one page
	// for each, and a load balancer chooses among them. Defaults to the host's
	// name.
	Name string
	// Tenants is how many of the tenants that are awake are listed, those that
	// press hardest on their servers ([tenancy.Plugin.TopTenants]). Negative
	// lists none, where ids of tenants must not be shown. Defaults to 50.
	Tenants int
	// Servers is how many servers are listed and remembered, those that are down
	// or that press hardest first. Defaults to 64.
	Servers int
	// History is how far back the page shows what happened. Defaults to 5
	// minutes.
	History time.Duration
	// Interval is how often the figures are noted, which takes some
	// microseconds, and how often a page that is open brings itself up to date.
	// It is at least 100 ms, and History is at most 3600 times as long. A sample
	// takes some 100 bytes for each server and as many again: the defaults come
	// to 16 KB for each server, and to 1.1 MB at most. Defaults to 2 seconds.
	Interval time.Duration
}

func (c Config) withDefaults() Config {
	if c.Name == "" {
		c.Name, _ = os.Hostname() // a page without a name is better than none
	}
	if c.Tenants == 0 {
		c.Tenants = 50
	}
	if c.Servers == 0 {
		c.Servers = 64
	}
	if c.History == 0 {
		c.History = 5 * time.Minute
	}
	if c.Interval == 0 {
		c.Interval = 2 * time.Second
	}
	return c
}

// validate judges what withDefaults returned.
func (c Config) validate() error {
	switch {
	case c.Plugin == nil:
		return errors.New("tenancystatus: Config.Plugin is not set; set what db.Use was given")
	case c.Servers < 0:
		return fmt.Errorf("tenancystatus: Config.Servers is negative: %d; leave it out for 64", c.Servers)
	case c.Interval < minInterval:
		return fmt.Errorf("tenancystatus: Config.Interval is %s; it must be at least %s", c.Interval, minInterval)
	case c.History < c.Interval:
		return fmt.Errorf("tenancystatus: Config.History is %s, less than Config.Interval, %s; there would be nothing to show", c.History, c.Interval)
	case c.History/c.Interval > maxSamples:
		return fmt.Errorf("tenancystatus: Config.History is %s, more than %d times Config.Interval, %s; shorten it or raise the interval", c.History, maxSamples, c.Interval)
	}
	return nil
}
