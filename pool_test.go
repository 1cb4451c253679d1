package tenancy

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What docs/operations.md says of a Config that sets nothing.
func TestDefaultLimits(t *testing.T) {
	require.Equal(t, Limits{
		MaxPools:          1000,
		MaxConnsPerTenant: 4,
		MaxConnsPerServer: 20,
		IdleTimeout:       15 * time.Minute,
		ConnMaxIdleTime:   time.Minute,
		ConnMaxLifetime:   30 * time.Minute,
		ConnectTimeout:    10 * time.Second,
		AcquireTimeout:    10 * time.Second,
		ReplicaTimeout:    time.Second,
	}, Config{}.withDefaults().Pools)
}

// Pools that are opened together don't end their connections together.
func TestLifetimesDiffer(t *testing.T) {
	l := newLab(t, Limits{ConnMaxLifetime: 100 * time.Minute})
	defer l.end()
	shortest, longest := time.Duration(1<<62), time.Duration(0)
	for range 100 {
		d := l.pool("a", 1).dialer.lifetime
		shortest, longest = min(shortest, d), max(longest, d)
	}
	require.GreaterOrEqual(t, shortest, 90*time.Minute)
	require.LessOrEqual(t, longest, 110*time.Minute)
	require.Greater(t, longest-shortest, 5*time.Minute)
}
