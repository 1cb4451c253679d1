package catalog

import "slices"

// State is where a tenant is in its life. docs/lifecycle.md has the diagram.
type State string

const (
	// Provisioning: its database is being made. Nobody is served.
	Provisioning State = "provisioning"
	// Ready: a database that waits for its tenant, who gets it at once.
	Ready State = "ready"
	// Active: it is served.
	Active State = "active"
	// Suspended: it is kept, and refused with tenancy.ErrTenantSuspended.
	Suspended State = "suspended"
	// Moving: it is out of service for a moment, for a rename or a move, and
	// comes back by itself.
	Moving State = "moving"
	// Deleting: it is being removed, and won't come back.
	Deleting State = "deleting"
	// Deleted: a tombstone. Its id is free.
	Deleted State = "deleted"
)

// transitions is all that can happen to a tenant. Every change of a state is
// looked up here, and made by a compare-and-set in the database.
var transitions = map[State][]State{
	"": {Provisioning, Deleting}, // the latter for what a move has left

	Provisioning: {Ready, Active, Deleting},
	Ready:        {Provisioning, Active, Deleting},
	Active:       {Suspended, Moving, Deleting},
	Suspended:    {Active, Moving, Deleting},
	Moving:       {Active, Suspended, Deleting},
	Deleting:     {Deleted},
	Deleted:      {},
}

// can reports whether a tenant may go from one state to another, or stay.
func (s State) can(to State) bool { return s == to && s != "" || slices.Contains(transitions[s], to) }

// Task is work of several steps on one tenant.
type Task string

// The tasks. Each has its steps in the table of tasks.go.
const (
	TaskCreate    Task = "create"
	TaskReady     Task = "ready"
	TaskClaim     Task = "claim"
	TaskAdopt     Task = "adopt"
	TaskRestore   Task = "restore"
	TaskSuspend   Task = "suspend"
	TaskUnsuspend Task = "unsuspend"
	TaskRename    Task = "rename"
	TaskMove      Task = "move"
	TaskRemove    Task = "remove"
)
