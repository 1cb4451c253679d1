package tenancystatus

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// none is shown where there is nothing to count.
const none = "–"

// number writes n with separators between thousands: 1,204.
func number[T int | uint64](n T) string {
	s := strconv.FormatInt(int64(n), 10)
	start := 0
	if s[0] == '-' {
		start = 1
	}
	for i := len(s) - 3; i > start; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// decimal writes v with as many digits as say something: 0.03, 4.2, 1,204.
func decimal(v float64) string {
	switch {
	case v == 0:
		return "0"
	case math.Abs(v) < 0.095:
		return trimmed(v, 2)
	case math.Abs(v) < 9.95:
		return trimmed(v, 1)
	}
	return number(int(math.Round(v)))
}

// trimmed writes v with n decimals, but for zeros at the end.
func trimmed(v float64, n int) string {
	scale := math.Pow10(n)
	return strconv.FormatFloat(math.Round(v*scale)/scale, 'f', -1, 64)
}

func perSecond(v float64) string { return decimal(v) + "/s" }

// seconds writes a duration in the unit that fits it.
func seconds(s float64) string {
	switch {
	case s <= 0:
		return "0"
	case s < 0.000_999_5:
		return decimal(s*1e6) + " µs"
	case s < 0.999_5:
		return decimal(s*1e3) + " ms"
	case s < 59.95:
		return decimal(s) + " s"
	}
	return span(time.Duration(s * float64(time.Second)))
}

// span writes a long duration in its two largest units.
func span(d time.Duration) string {
	d = max(0, d.Round(time.Second)) // a clock can be set back
	parts := []struct {
		n    time.Duration
		unit string
	}{
		{d / (24 * time.Hour), "d"}, {d / time.Hour % 24, "h"}, {d / time.Minute % 60, "min"}, {d / time.Second % 60, "s"},
	}
	for i, p := range parts {
		switch {
		case p.n == 0:
		case i+1 < len(parts) && parts[i+1].n > 0:
			return fmt.Sprintf("%d %s %d %s", p.n, p.unit, parts[i+1].n, parts[i+1].unit)
		default:
			return fmt.Sprintf("%d %s", p.n, p.unit)
		}
	}
	return "0 s"
}

// percent writes part of whole; what is not all is never shown as 100 %.
func percent(part, whole uint64) string {
	if whole == 0 {
		return none
	}
	tenths := part * 1000 / whole
	return strconv.FormatFloat(float64(tenths)/10, 'f', -1, 64) + " %"
}

// mean writes the mean of waits that took sum seconds. A wait is counted when it
// begins, and its time when it ends: those that go on have none yet.
func mean(sum float64, waits uint64, going int) string {
	if sum == 0 {
		return none
	}
	return seconds(sum / max(1, float64(waits)-float64(going)))
}

// plural writes n things.
func plural[T int | uint64](n T, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return number(n) + " " + many
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05") }

// serverName is what the page calls a server.
func serverName(name string) string {
	if name == "" {
		return "(unnamed)"
	}
	return name
}
