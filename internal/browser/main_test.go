package browser_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/gorm-tenancy/tenancy/internal/browser"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(browser.Main(m)) }
