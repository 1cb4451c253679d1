// Package enginetest is what a [tenancy.Engine] has to pass: every promise of
// its interfaces, tried on a real server. docs/engines.md says how to write an
// engine, and shows a test that runs it:
//
//	func TestConformance(t *testing.T) {
//		enginetest.Run(t, enginetest.Config{Engine: mysqlengine.Engine{}, ...})
//	}
//
// It looks at databases by connections that the engine did not make: an engine
// that opens the wrong database would see only what it wrote there itself. Run
// it under -race, and with a check for goroutines that are left.
package enginetest

import (
	"database/sql"
	"slices"
	"strings"
	"testing"
	"time"

	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
)

// Secret is in every DSN that is not meant to work: no error and no name may
// show it.
const Secret = "enginetest-secret"

// Place is what a DSN leads to.
type Place struct {
	// Addr is the server's "host:port": Config.Address, or one of the suite's
	// own, by which it sees what an engine sends. "" without [Network].
	Addr string
	// Database is a name that Config.Create returned, or one that no database
	// has.
	Database string
	// Password is Config.Password, or a wrong one. "" without [Passwords].
	Password string
}

// Config says how to test an engine. What it leaves out has to be in Lacks, so
// that nothing is left untested by accident.
type Config struct {
	// Engine is under test. Required.
	Engine tenancy.Engine
	// Create makes an empty database on the server, returns its name, and
	// removes it at tb's cleanup. Required.
	Create func(tb testing.TB) (name string)
	// Open opens such a database without the engine, by the driver itself. The
	// suite closes it. Required.
	Open func(tb testing.TB, name string) *sql.DB
	// DSN returns the DSN of a place, for Engine.Connector. Its user may create
	// tables. Where p.Addr is not Address, only that may differ: no other
	// machine is asked, and TLS is off. Required.
	DSN func(p Place) string
	// Dialector is GORM's for the server. Required.
	Dialector func(db *sql.DB) gorm.Dialector
	// Bad are DSNs that Engine.Connector refuses: malformed, without a
	// database's name, another server's kind. Put [Secret] where one has its
	// password. Required.
	Bad []string

	// Address is the server's "host:port". See [Network].
	Address string
	// Password is what the server asks of DSN's user. See [Passwords].
	Password string
	// Endless is a statement that runs for a minute at least, such as
	// "SELECT pg_sleep(60)". See [Cancels].
	Endless string
	// Kill ends all sessions of the database. See [Kills].
	Kill func(tb testing.TB, name string)
	// Full returns the DSN of a database on a server that has no connection
	// left, until tb's cleanup. See [Saturates].
	Full func(tb testing.TB) string

	// Lacks says why the engine or its server can't do a thing. The reason is
	// logged. One that is missing here fails the test, and so does one that is
	// there after all.
	Lacks map[Feature]string
	// Patience is how long the suite waits for what has to happen. Defaults to
	// 20 seconds.
	Patience time.Duration
}

// Feature is something that not every engine or server can have.
type Feature string

const (
	// Network is a server that is reached by TCP; Config.Address.
	Network Feature = "Network"
	// Passwords are asked for by the server; Config.Password.
	Passwords Feature = "Passwords"
	// Cancels is ending a statement in the middle of it; Config.Endless.
	Cancels Feature = "Cancels"
	// Kills is a server that can end sessions; Config.Kill.
	Kills Feature = "Kills"
	// Saturates is a server whose connections are limited; Config.Full.
	Saturates Feature = "Saturates"
	// Permits is the engine's connectors being [tenancy.PermitConnector].
	Permits Feature = "Permits"
	// NamesServer is the engine's connectors being [tenancy.ServerConnector].
	NamesServer Feature = "NamesServer"
	// Identifies is the engine's connections being [tenancy.IdentityConn].
	Identifies Feature = "Identifies"
	// Replicates is the engine being a [tenancy.ReplicaEngine].
	Replicates Feature = "Replicates"
	// NamesDialect is the engine being a [tenancy.Dialect].
	NamesDialect Feature = "NamesDialect"
)

// check is one promise, or some that are seen together.
type check struct {
	name  string
	needs []Feature
	run   func(*suite)
}

var checks = []check{
	{"Features", nil, (*suite).features},
	{"ConnectorRefuses", nil, (*suite).connectorRefuses},
	{"ConnectorDoesNoIO", []Feature{Network}, (*suite).connectorDoesNoIO},
	{"Server", nil, (*suite).serverName},
	{"ServerByAddress", []Feature{Network}, (*suite).serverByAddress},
	{"Dialect", []Feature{NamesDialect}, (*suite).dialect},
	{"ConnectorLeadsToItsDatabase", nil, (*suite).leadsThere},
	{"Together", nil, (*suite).together},
	{"ClassifyCaller", nil, (*suite).classifyCaller},
	{"ClassifyStatements", nil, (*suite).classifyStatements},
	{"ClassifyMissing", nil, (*suite).classifyMissing},
	{"ClassifyPassword", []Feature{Passwords}, (*suite).classifyPassword},
	{"ClassifyUnreachable", []Feature{Network}, (*suite).classifyUnreachable},
	{"ClassifyFull", []Feature{Saturates}, (*suite).classifyFull},
	{"ConnectEnds", nil, (*suite).connectEnds},
	{"ConnectEndsInSilence", []Feature{Network}, (*suite).connectEndsInSilence},
	{"StatementEnds", []Feature{Cancels}, (*suite).statementEnds},
	{"KilledSession", []Feature{Kills}, (*suite).killedSession},
	{"Permit", []Feature{Permits, Network}, (*suite).permit},
	{"PermitOfCancelled", []Feature{Permits, Network, Cancels}, (*suite).permitOfCancelled},
	{"PermitOfKilled", []Feature{Permits, Kills}, (*suite).permitOfKilled},
	{"Identity", nil, (*suite).identity},
	{"IdentityConn", []Feature{Identifies}, (*suite).identityConn},
	{"Routes", nil, (*suite).routes},
	{"Transactions", nil, (*suite).transactions},
	{"ReplicaRefusesWrites", []Feature{Replicates}, (*suite).replicaRefusesWrites},
	{"ReplicaRefused", []Feature{Replicates}, (*suite).replicaRefused},
	{"ReplicaIsLikeConnector", []Feature{Replicates}, (*suite).replicaIsLikeConnector},
}

// Run tests an engine, each promise as a test of its own below t. They need
// three databases at a time at most.
func Run(t *testing.T, cfg Config) {
	t.Helper()
	if missing := cfg.missing(); len(missing) > 0 {
		t.Fatalf("enginetest: Config lacks %s", strings.Join(missing, ", "))
	}
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			if !c.lacks(t, cfg) {
				c.run(newSuite(t, cfg))
			}
		})
	}
}

// lacks reports whether a check can't be made, and says why.
func (c check) lacks(tb testing.TB, cfg Config) bool {
	tb.Helper()
	lacks := false
	for _, f := range c.needs {
		if why, ok := cfg.Lacks[f]; ok {
			tb.Logf("not applicable: the engine lacks %s: %s", f, why)
			lacks = true
		}
	}
	return lacks
}

// missing are the fields without which nothing can be tested.
func (cfg Config) missing() (fields []string) {
	for field, there := range map[string]bool{
		"Engine": cfg.Engine != nil, "Create": cfg.Create != nil, "Open": cfg.Open != nil, "DSN": cfg.DSN != nil,
		"Dialector": cfg.Dialector != nil, "Bad": len(cfg.Bad) > 0,
	} {
		if !there {
			fields = append(fields, field)
		}
	}
	slices.Sort(fields)
	return fields
}
