package tenancyotel

import (
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/gorm-tenancy/tenancy"
)

// sums returns what the parts of table add up to, and how many are not 0.
func sums[T any](table []figure[T], from *T) (total int64, parts int) {
	for _, f := range table {
		for _, p := range f.parts {
			if v := p.of(from); v != 0 {
				total += v
				parts++
			}
		}
	}
	return total, parts
}

// TestAllFigures sets each field of Stats alone, and sees it in a metric. Those
// that are a part of another change how it is divided, and not the sum.
func TestAllFigures(t *testing.T) {
	partOf := map[string]bool{"InUse": true, "Replicas": true, "Idle": true, "Dialing": true}
	check := func(name string, f reflect.Value, sums func() (int64, int)) {
		want := 5
		switch f.Interface().(type) {
		case int:
			f.SetInt(5)
		case uint64:
			f.SetUint(5)
		case bool:
			f.SetBool(true)
			want = 1
		case time.Duration, string, map[tenancy.Cause]uint64, []tenancy.ServerStats:
			return // recorder.record has them
		default:
			t.Fatalf("there is no metric for a %s: %s", f.Type(), name)
		}
		total, parts := sums()
		if partOf[name] {
			require.Zero(t, total, name)
			require.Equal(t, 2, parts, name)
			return
		}
		require.EqualValues(t, want, total, name)
		require.Equal(t, 1, parts, name)
	}
	for i := range reflect.TypeFor[tenancy.Stats]().NumField() {
		var s tenancy.Stats
		check(reflect.TypeFor[tenancy.Stats]().Field(i).Name, reflect.ValueOf(&s).Elem().Field(i), func() (int64, int) { return sums(ofPlugin, &s) })
	}
	for i := range reflect.TypeFor[tenancy.ServerStats]().NumField() {
		var s tenancy.ServerStats
		check(reflect.TypeFor[tenancy.ServerStats]().Field(i).Name, reflect.ValueOf(&s).Elem().Field(i), func() (int64, int) { return sums(ofServer, &s) })
	}
}

// TestNames makes all instruments: the SDK checks their names.
func TestNames(t *testing.T) {
	r, err := newRecorder(Options{MeterProvider: sdkmetric.NewMeterProvider()})
	require.NoError(t, err)
	require.Len(t, r.all, len(ofPlugin)+len(ofServer)+2)
}
