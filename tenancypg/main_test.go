package tenancypg

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/gorm-tenancy/tenancy/internal/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Main(m)) }

func writeFile(t testing.TB, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
