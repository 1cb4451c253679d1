package tenancyprometheus

import (
	"reflect"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/figures"
)

// fill sets each field of *to to another number from *n on, but for what names
// things. Bools become true, and are returned as how many there are.
func fill(t *testing.T, to any, n *int) (bools int) {
	v := reflect.ValueOf(to).Elem()
	for i := range v.NumField() {
		*n++
		switch f := v.Field(i); f.Interface().(type) {
		case int:
			f.SetInt(int64(*n))
		case uint64:
			f.SetUint(uint64(*n))
		case time.Duration:
			f.SetInt(int64(time.Duration(*n) * time.Second))
		case bool:
			f.SetBool(true)
			bools++
			*n--
		case string, map[tenancy.Cause]uint64, []tenancy.ServerStats:
			*n--
		default:
			t.Fatalf("there is no metric for a %s: %s", f.Type(), v.Type().Field(i).Name)
		}
	}
	return bools
}

// TestAllFigures sets each field of Stats to another number, and finds each in
// one metric.
func TestAllFigures(t *testing.T) {
	n := 1 // 1 is what a bool becomes
	s := tenancy.Stats{Evicted: map[tenancy.Cause]uint64{}, Servers: make([]tenancy.ServerStats, 1)}
	require.Zero(t, fill(t, &s, &n))
	bools := fill(t, &s.Servers[0], &n)
	for _, cause := range figures.Causes {
		n++
		s.Evicted[cause] = uint64(n)
	}
	ch := make(chan prometheus.Metric, 100)
	collectStats(ch, s)
	close(ch)
	times := map[float64]int{}
	for m := range ch {
		var out dto.Metric
		require.NoError(t, m.Write(&out))
		times[out.GetGauge().GetValue()+out.GetCounter().GetValue()]++
	}
	want := map[float64]int{1: bools}
	for i := 2; i <= n; i++ {
		want[float64(i)] = 1
	}
	require.Equal(t, want, times)
}

func TestSumUp(t *testing.T) {
	got := sumUp([]tenancy.TenantStats{
		{Tenant: "a", Server: "x", Replica: true, Down: true, MaxConns: 4, Conns: 3, Idle: 1, Waiting: 2, Waits: 5, WaitTime: time.Second, Exhausted: 1},
		{Tenant: "b", Server: "x", Conns: 2},
		{Tenant: "a", Server: "y", Conns: 2},
		{Tenant: "c", Server: "x", Conns: 1},
		{Tenant: "a", Server: "x", MaxConns: 4, Conns: 1, Idle: 1, Waits: 1, WaitTime: time.Second, Exhausted: 2},
	}, 3)
	require.Equal(t, []tenancy.TenantStats{
		{Tenant: "a", Server: "x", MaxConns: 8, Conns: 4, Idle: 2, Waiting: 2, Waits: 6, WaitTime: 2 * time.Second, Exhausted: 3},
		{Tenant: "b", Server: "x", Conns: 2},
		{Tenant: "a", Server: "y", Conns: 2},
	}, got)
}
