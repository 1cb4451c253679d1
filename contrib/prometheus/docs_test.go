package tenancyprometheus_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/gorm-tenancy/tenancy"
	tenancyprometheus "github.com/gorm-tenancy/tenancy/contrib/prometheus"
	"github.com/gorm-tenancy/tenancy/internal/notes"
)

const page = "../../docs/observability.md"

// exported returns the names of all metrics, as a registry gathers them, with
// their labels; and their series.
func exported(t *testing.T) (metrics map[string][]string, series map[string]float64) {
	observer := tenancyprometheus.NewObserver()
	db, plugin := openFiles(t, notes.Files(t, "acme"), func(c *tenancy.Config) { c.Observer = observer })
	require.NoError(t, notes.Ask(db, "acme"))
	observer.Observe(tenancy.Event{Kind: tenancy.EventWaited, Server: "files"})
	reg := register(t, tenancyprometheus.NewCollector(plugin, tenancyprometheus.Options{Tenants: 1}), observer)
	families, err := reg.Gather()
	require.NoError(t, err)
	metrics = map[string][]string{}
	for _, family := range families {
		labels := []string{}
		for _, l := range family.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		metrics[family.GetName()] = labels
		if strings.HasSuffix(family.GetName(), "_duration_seconds") {
			metrics[family.GetName()+"_bucket"] = append(labels, "le")
		}
	}
	return metrics, values(t, reg)
}

var (
	nameRE    = regexp.MustCompile(`\btenancy_[a-z_]+\b`)
	rowRE     = regexp.MustCompile("(?m)^\\| `(tenancy_[a-z_]+)` \\|")
	byRE      = regexp.MustCompile(`\bby \(([^)]*)\)`)
	matcherRE = regexp.MustCompile(`(tenancy_[a-z_]+)\{(\w+)=~?"([^"]*)"\}`)
	blockRE   = regexp.MustCompile("(?s)```promql\n(.*?)```")
)

// checkExpr looks up what a PromQL expression names. Each "by" must have labels
// that all its metrics have, but for those of the scrape.
func checkExpr(t *testing.T, metrics map[string][]string, series map[string]float64, expr string) {
	t.Helper()
	names := nameRE.FindAllString(expr, -1)
	require.NotEmpty(t, names, expr)
	for _, name := range names {
		require.Contains(t, metrics, name, expr)
		for _, by := range byRE.FindAllStringSubmatch(expr, -1) {
			for label := range strings.SplitSeq(by[1], ", ") {
				if label != "job" && label != "instance" {
					require.Contains(t, metrics[name], label, expr)
				}
			}
		}
	}
	require.Equal(t, strings.Count(expr, "{"), len(matcherRE.FindAllString(expr, -1)), expr)
	for _, m := range matcherRE.FindAllStringSubmatch(expr, -1) {
		require.Contains(t, metrics[m[1]], m[2], expr)
		for value := range strings.SplitSeq(m[3], "|") {
			require.Contains(t, series, m[1]+"{"+value+"}", expr)
		}
	}
}

// TestDocs holds the page against what is exported: its tables have every
// metric, and nothing else is named anywhere.
func TestDocs(t *testing.T) {
	metrics, series := exported(t)
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	for _, name := range nameRE.FindAllString(string(text), -1) {
		require.Contains(t, metrics, name)
	}
	var want, rows []string
	for name := range metrics {
		if !strings.HasSuffix(name, "_bucket") {
			want = append(want, name)
		}
	}
	for _, m := range rowRE.FindAllStringSubmatch(string(text), -1) {
		rows = append(rows, m[1])
	}
	require.ElementsMatch(t, want, rows)

	blocks := blockRE.FindAllStringSubmatch(string(text), -1)
	require.Greater(t, len(blocks), 10)
	for _, b := range blocks {
		for line := range strings.Lines(b[1]) {
			checkExpr(t, metrics, series, line)
		}
	}
}

// TestAlerts holds alerts.yml against what is exported and against the page.
// Each alert has a section there, with the same expression and severity.
func TestAlerts(t *testing.T) {
	source, err := os.ReadFile("alerts.yml")
	require.NoError(t, err)
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	var file struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	decoder := yaml.NewDecoder(strings.NewReader(string(source)))
	decoder.KnownFields(true)
	require.NoError(t, decoder.Decode(&file))
	require.Len(t, file.Groups, 1)
	metrics, series := exported(t)
	_, alerts, ok := strings.Cut(string(text), "\n## Alerts\n")
	require.True(t, ok)
	alerts, _, ok = strings.Cut(alerts, "\n## ")
	require.True(t, ok)
	require.Equal(t, len(file.Groups[0].Rules), strings.Count(alerts, "\n### "))
	for _, rule := range file.Groups[0].Rules {
		checkExpr(t, metrics, series, rule.Expr)
		require.NotEmpty(t, rule.Annotations["summary"], rule.Alert)
		require.Contains(t, rule.Annotations["description"], "docs/observability.md#"+strings.ToLower(rule.Alert))
		_, section, ok := strings.Cut(alerts, "\n### "+rule.Alert+"\n")
		require.True(t, ok, rule.Alert)
		section, _, _ = strings.Cut(section, "\n### ")
		severity := map[string]string{"page": "Page. ", "ticket": "Ticket. "}[rule.Labels["severity"]]
		require.NotEmpty(t, severity, rule.Alert)
		require.True(t, strings.HasPrefix(section, severity), rule.Alert)
		block := blockRE.FindStringSubmatch(section)
		require.NotNil(t, block, rule.Alert)
		require.Equal(t, strings.Fields(rule.Expr), strings.Fields(block[1]), rule.Alert)
	}
}
