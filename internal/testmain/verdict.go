package testmain

import "fmt"

// Verdict is a [TB] that records how a test would have ended.
type Verdict struct{ Skipped, Failed string }

// Helper is TB's.
func (v *Verdict) Helper() {}

// Cleanup forgets what it is given.
func (v *Verdict) Cleanup(func()) {}

// Logf prints nothing.
func (v *Verdict) Logf(string, ...any) {}

// Skipf records.
func (v *Verdict) Skipf(format string, args ...any) { v.Skipped = fmt.Sprintf(format, args...) }

// Fatalf records, and does not end the goroutine.
func (v *Verdict) Fatalf(format string, args ...any) { v.Failed = fmt.Sprintf(format, args...) }

// Said is the text of the one outcome that is wanted, "" if it was another one, or
// both.
func (v *Verdict) Said(failed bool) string {
	switch {
	case v.Skipped != "" && v.Failed != "":
		return ""
	case failed:
		return v.Failed
	}
	return v.Skipped
}
