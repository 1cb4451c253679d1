package tenancystatus

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestNumbers(t *testing.T) {
	for n, want := range map[int]string{0: "0", 7: "7", 999: "999", 1000: "1,000", -1000: "-1,000", -100: "-100", 1234567: "1,234,567"} {
		require.Equal(t, want, number(n))
	}
	for v, want := range map[float64]string{
		0: "0", 0.004: "0", 0.03: "0.03", 0.094: "0.09", 0.1: "0.1", 0.96: "1", 1.25: "1.3", 9.94: "9.9", 9.96: "10", 10.4: "10", 1203.6: "1,204",
	} {
		require.Equal(t, want, decimal(v), v)
	}
}

func TestSeconds(t *testing.T) {
	for s, want := range map[float64]string{
		0: "0", -1: "0", 0.000_002_5: "2.5 µs", 0.000_85: "850 µs", 0.001: "1 ms", 0.0124: "12 ms", 0.000_999_9: "1 ms", 0.9994: "999 ms", 0.9996: "1 s",
		1.24: "1.2 s", 59.9: "60 s", 59.96: "1 min", 61: "1 min 1 s", 3600: "1 h", 3725: "1 h 2 min", 90000: "1 d 1 h",
	} {
		require.Equal(t, want, seconds(s), s)
	}
	require.Equal(t, "0 s", span(0))
	require.Equal(t, "1 d", span(24*time.Hour+5*time.Second), "of the two largest units the second is 0")
}

func TestPercent(t *testing.T) {
	require.Equal(t, none, percent(0, 0))
	require.Equal(t, "0 %", percent(0, 3))
	require.Equal(t, "66.6 %", percent(2, 3))
	require.Equal(t, "99.9 %", percent(99999, 100000), "what is not all is not 100 %")
	require.Equal(t, "100 %", percent(5, 5))
}

func TestMean(t *testing.T) {
	require.Equal(t, none, mean(0, 0, 0))
	require.Equal(t, none, mean(0, 3, 3), "none has ended")
	require.Equal(t, "2 s", mean(4, 5, 3))
	require.Equal(t, "4 s", mean(4, 2, 3), "some that wait did not have to be counted")
}

func TestPlural(t *testing.T) {
	require.Equal(t, "1 caller waits", plural(1, "caller waits", "callers wait"))
	require.Equal(t, "1,000 callers wait", plural(uint64(1000), "caller waits", "callers wait"))
}
