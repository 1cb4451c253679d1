package catalog_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/catalog"
)

// page is docs/lifecycle.md.
func page(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../docs/lifecycle.md")
	require.NoError(t, err)
	return string(text)
}

// table returns the first columns of the page's table under the heading.
func table(t *testing.T, heading string) map[string]string {
	t.Helper()
	_, rest, ok := strings.Cut(page(t), "\n"+heading+"\n")
	require.True(t, ok, heading)
	rows := map[string]string{}
	began := false
	for line := range strings.Lines(rest) {
		if !strings.HasPrefix(line, "|") {
			if began {
				break
			}
			continue
		}
		cells := strings.Split(strings.TrimSpace(line), "|")
		if began = true; strings.HasPrefix(cells[1], "---") {
			clear(rows) // what was before is the head
			continue
		}
		rows[strings.Trim(cells[1], " `")] = strings.ReplaceAll(strings.TrimSpace(cells[2]), "`", "")
	}
	return rows
}

// The page's table and diagram of states are the ones that the code has.
func TestPageStates(t *testing.T) {
	want := map[string]string{}
	edges := map[string]bool{}
	for from, to := range catalog.Transitions() {
		var names []string
		for _, s := range to {
			names = append(names, string(s))
			edges[string(from)+" "+string(s)] = true
		}
		want[string(from)] = strings.Join(names, ", ")
	}
	require.Equal(t, want, table(t, "## States"))

	drawn := map[string]bool{}
	for _, edge := range regexp.MustCompile(`(?m)^\t(\S+) --> (\w+)`).FindAllStringSubmatch(page(t), -1) {
		drawn[strings.ReplaceAll(edge[1], "[*]", "")+" "+edge[2]] = true
	}
	require.Equal(t, edges, drawn)
}

// So are its tasks and their steps.
func TestPageTasks(t *testing.T) {
	want := map[string]string{}
	for task, steps := range catalog.Steps() {
		want[string(task)] = strings.Join(steps, ", ")
		require.Regexp(t, "(?m)^\\| `"+string(task)+"`[^|]*\\|[^|]*\\|[^|]*\\|[^|]*\\|$", page(t), "what is there after a crash")
	}
	require.Equal(t, want, table(t, "## Operations"))
}

// What the page shows as Go is in an example, which compiles.
func TestPageCode(t *testing.T) {
	var code strings.Builder
	for _, glob := range []string{"example*_test.go", "../examples/lifecycle/*.go"} {
		files, err := filepath.Glob(glob)
		require.NoError(t, err)
		for _, f := range files {
			b, err := os.ReadFile(f)
			require.NoError(t, err)
			code.Write(b)
		}
	}
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(page(t), -1)
	require.NotEmpty(t, blocks)
	for _, b := range blocks {
		require.Contains(t, code.String(), b[1])
	}
}
