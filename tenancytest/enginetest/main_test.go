package enginetest

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/gorm-tenancy/tenancy/internal/pgtest"
)

// What a check leaves behind after an engine failed it, ends with the server.
func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Main(m)) }
