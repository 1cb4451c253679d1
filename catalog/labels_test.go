package catalog_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/catalog"
)

// A label must not mean one thing to one database and another to the next: a
// key that is a path or a number to some is refused, or found by just itself.
func TestLabelKeys(t *testing.T) {
	onEngines(t, func(t *testing.T, p place) {
		pr := p.start(t)
		for _, key := range []string{"", "$", "$x", "$.a", "a[0]", `q"t`, "a b", "é", "a\x00", "a\n", strings.Repeat("k", 64)} {
			labels := map[string]string{key: "v"}
			_, err := pr.catalog.Create(t.Context(), "bad", catalog.CreateOptions{Labels: labels})
			require.ErrorContains(t, err, "has a key", "%q", key)
			_, err = pr.catalog.Update(t.Context(), "bad", catalog.Change{Labels: labels})
			require.ErrorContains(t, err, "has a key", "%q", key)
		}
		require.Empty(t, p.there(t))
		pr.create(t, "none")
		for i, key := range []string{"plain", "a.b", "2024", "-1", "0", "a/b", "A_b", strings.Repeat("k", 63)} {
			id := fmt.Sprintf("t%d", i)
			labels := map[string]string{key: "v"}
			if i == 0 {
				_, err := pr.catalog.Create(t.Context(), id, catalog.CreateOptions{Labels: labels})
				require.NoError(t, err)
			} else {
				id = "none"
				_, err := pr.catalog.Update(t.Context(), id, catalog.Change{Labels: labels})
				require.NoError(t, err)
			}
			var found []string
			for row, err := range pr.catalog.List(t.Context(), catalog.Filter{Labels: labels}) {
				require.NoError(t, err)
				require.Equal(t, "v", row.Labels[key])
				found = append(found, row.ID)
			}
			require.Equal(t, []string{id}, found, "%q", key)
		}
	})
}
