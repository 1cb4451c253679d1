package tenancystatus

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
)

// A clock that was set back leaves samples of later. They are not shown: nothing
// was counted in less than no time.
func TestClockSetBack(t *testing.T) {
	p, err := New(Config{Plugin: tenancy.New(tenancy.Config{Resolver: tenancy.Static{}})})
	require.NoError(t, err)
	defer p.Close()
	p.history.add(time.Now().Add(time.Hour), tenancy.Stats{})
	r := p.Report()
	require.Len(t, r.History, 1, "that of New")

	p.Close()
	p.history = newHistory(1, 1)
	p.history.add(time.Now().Add(time.Hour), tenancy.Stats{})
	r = p.Report()
	require.Empty(t, r.History)
	require.Zero(t, r.Recent)
	require.NoError(t, render(&bytes.Buffer{}, newView(r, p.cfg)))
}
