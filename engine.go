package tenancy

import (
	"context"
	"database/sql/driver"
)

// Engine opens the databases of one kind of server. Packages tenancypg and
// tenancysqlite implement it; the root package builds no driver. Package
// tenancytest/enginetest tests one of your own.
type Engine interface {
	// Connector parses dsn once and returns what opens connections to it. It
	// does no I/O. A DSN that is not good is an error here; the error must
	// not contain its password, nor must those of its connections.
	Connector(dsn string) (driver.Connector, error)
	// Server returns the name of the server that dsn leads to, "host:port"
	// for instance: databases of one server share one. It holds no
	// credentials.
	Server(dsn string) string
	// Classify says whose fault an error of a connection or a statement is.
	Classify(err error) Fault
}

// Dialect is implemented by an [Engine] that belongs to one GORM dialect, by
// the name that gorm.Dialector.Name returns. db.Use then refuses a db of
// another dialect.
type Dialect interface {
	Dialect() string
}

// ServerLimit is implemented by an [Engine] for whose servers another number of
// connections is a better default of [Limits.MaxConnsPerServer].
type ServerLimit interface {
	ServerLimit() int
}

// ReplicaEngine is implemented by an [Engine] that can open a database such
// that the server itself refuses to write: [Database.Replicas] with a DSN are
// opened by it, so that nothing is written to a replica, not even to one that
// was promoted meanwhile.
type ReplicaEngine interface {
	// ReplicaConnector is what [Engine.Connector] is, for connections whose
	// statements may not write.
	ReplicaConnector(dsn string) (driver.Connector, error)
	// ReplicaRefused reports whether err, of a statement on a replica, is
	// about the replica being one: it must not write, or the statement was in
	// the way of what the primary sends, or what it asks for has not come from
	// there yet. Nothing of the statement was done; it then runs on the
	// primary.
	ReplicaRefused(err error) bool
}

// Fault says whose fault an error is, as far as connections go.
type Fault uint8

const (
	// FaultNone is for an error that says nothing about the connection: a
	// syntax error, a unique violation, no error at all.
	FaultNone Fault = iota
	// FaultCaller is the caller's own cancellation or deadline.
	FaultCaller
	// FaultTenant concerns one database: it is missing, or refuses the login.
	FaultTenant
	// FaultServer concerns the whole server: refused, timed out, shutting
	// down.
	FaultServer
	// FaultSaturation means that the server has no connection left.
	FaultSaturation
)

// String returns the fault's name in lower case.
func (f Fault) String() string {
	switch f {
	case FaultCaller:
		return "caller"
	case FaultTenant:
		return "tenant"
	case FaultServer:
		return "server"
	case FaultSaturation:
		return "saturation"
	}
	return "none"
}

// Permit accounts for one physical connection, from before its dial until it
// is truly gone.
type Permit interface {
	// Release says that the connection is gone. Calls after the first do
	// nothing.
	Release()
}

// PermitConnector is implemented by connectors that can tell when a connection
// is gone, which may be later than its Close. The connection of any other
// connector counts as gone when its Close returns; [ServerStats] calls that
// count approximate.
type PermitConnector interface {
	driver.Connector
	// ConnectPermit is Connect for a connection that is accounted for by
	// permit: the connector releases it when the connection is gone. If
	// ConnectPermit fails, the caller releases it.
	ConnectPermit(ctx context.Context, permit Permit) (driver.Conn, error)
}

// ServerConnector is implemented by connectors that know which server they lead
// to: for a [Database] with a Connector that sets no Server.
type ServerConnector interface {
	driver.Connector
	// Server is what [Engine.Server] is for a DSN.
	Server() string
}
