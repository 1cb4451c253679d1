package pgtest_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/gorm-tenancy/tenancy/internal/pgtest"
)

// pgtest promises to run no goroutines, so that its users can look for leaks
// of their own.
func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Main(m)) }
