// Package statuspage tests package tenancystatus in a browser, with plugins that
// have real servers and real load.
package statuspage

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/gorm-tenancy/tenancy/internal/browser"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(browser.Main(pgtest.Main(m))) }
