package sandbox

import (
	"database/sql/driver"
	"testing"
	"time"
)

// SetCancelGrace changes it for one test.
func SetCancelGrace(t *testing.T, d time.Duration) {
	old := cancelGrace
	cancelGrace = d
	t.Cleanup(func() { cancelGrace = old })
}

// Waiting is how many wait for the connection.
func (s *Sandbox) Waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn.queue.mu.Lock()
	defer s.turn.queue.mu.Unlock()
	return len(s.turn.queue.waiting)
}

// Refuse is refuse.
var Refuse = refuse

// Read is read.
func Read(inner driver.Rows) (driver.Rows, error) { return read(inner) }
