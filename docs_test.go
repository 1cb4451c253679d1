package tenancy_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// codeRE finds what Markdown shows as it is: gorm.G[T](db) is no link.
var codeRE = regexp.MustCompile("(?s)```.*?```|`[^`]*`")

var linkRE = regexp.MustCompile(`\[([^\]]*)\]\(([^)#\s]+)(#[^)]*)?\)`)

var testRE = regexp.MustCompile(`^(Test|Fuzz)[A-Z0-9]\w*$`)

// TestDocsLinks follows every link of the documentation to a file, and every
// link to a test to the test.
func TestDocsLinks(t *testing.T) {
	pages, err := filepath.Glob("docs/*.md")
	require.NoError(t, err)
	pages = append(pages, "README.md", "SECURITY.md", "CHANGELOG.md")
	tests := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		require.NotContains(t, string(text), "[redteam", page)
		for _, link := range linkRE.FindAllStringSubmatch(codeRE.ReplaceAllString(string(text), ""), -1) {
			name, to := link[1], link[2]
			if strings.Contains(to, "://") {
				continue
			}
			target, err := os.ReadFile(filepath.Join(filepath.Dir(page), to))
			if info, stat := os.Stat(filepath.Join(filepath.Dir(page), to)); stat == nil && info.IsDir() {
				continue
			}
			require.NoError(t, err, "%s: %s", page, link[0])
			if testRE.MatchString(name) {
				tests++
				require.Contains(t, string(target), "func "+name+"(", "%s: %s", page, link[0])
			}
		}
	}
	require.Greater(t, tests, 50)
}
