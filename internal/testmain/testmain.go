// Package testmain is what packages have in common that start a program for the
// tests of a binary: package pgtest a server, package browser a browser.
package testmain

// TB is what is used of [testing.TB].
type TB interface {
	Helper()
	Cleanup(func())
	Logf(format string, args ...any)
	Skipf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// M is what is used of [testing.M].
type M interface {
	Run() int
}

// After returns an M that runs m, and then end. An error of end, which is told by
// end itself, fails the run.
func After(m M, end func() error) M { return after{m, end} }

type after struct {
	m   M
	end func() error
}

func (a after) Run() int {
	code := a.m.Run()
	if a.end() != nil {
		code = max(code, 1)
	}
	return code
}

// Missing ends a test of the package who that can't have what it needs: it is
// skipped, or fails if it must not be.
func Missing(tb TB, who string, err error, advice string, must bool) {
	tb.Helper()
	if must {
		tb.Fatalf("%s: %v: %s", who, err, advice)
		return
	}
	tb.Skipf("%s: %v: %s", who, err, advice)
}
