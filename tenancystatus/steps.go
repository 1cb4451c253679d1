package tenancystatus

import "time"

// step is what happened between two samples.
type step struct {
	At      time.Time // of the later one
	Seconds float64

	Waiting     int // gauge, at the end of it
	Waits       uint64
	Ended       uint64 // waits that ended, as far as samples tell
	WaitSeconds float64
	Exhausted   uint64
	DialsFailed uint64

	Statements, Opened, OpenFailed, Evicted, Refused uint64
}

// stepsOf are the steps between samples, on all servers that two samples have.
func stepsOf(samples []Sample) []step {
	var steps []step
	for i := 1; i < len(samples); i++ {
		from, to := &samples[i-1], &samples[i]
		s := step{
			At:         to.Time,
			Seconds:    to.Time.Sub(from.Time).Seconds(),
			Waiting:    to.Waiting,
			Statements: grown(from.StatementsTotal, to.StatementsTotal),
			Opened:     grown(from.OpenedTotal, to.OpenedTotal),
			OpenFailed: grown(from.OpenFailedTotal, to.OpenFailedTotal),
			Evicted:    grown(from.EvictedTotal, to.EvictedTotal),
			Refused:    grown(from.RefusedTotal, to.RefusedTotal),
		}
		if s.Seconds <= 0 {
			continue
		}
		for j := range to.Servers {
			b := &to.Servers[j]
			a := from.server(b.Server)
			if a == nil {
				if !from.complete() {
					continue // it may have been there
				}
				a = &ServerSample{} // it is new, and began with zeros
			}
			waits, waited := grown(a.WaitsTotal, b.WaitsTotal), grown(a.WaitSecondsTotal, b.WaitSecondsTotal)
			s.Waits += waits
			s.WaitSeconds += waited
			s.Exhausted += grown(a.ExhaustedTotal, b.ExhaustedTotal)
			s.DialsFailed += grown(a.DialsFailedTotal, b.DialsFailedTotal)
			if waited > 0 {
				// A wait counts when it begins, and its time when it ends.
				s.Ended += uint64(max(1, int(waits)+a.Waiting-b.Waiting))
			}
		}
		steps = append(steps, s)
	}
	return steps
}

// add adds a later step to s.
func (s step) add(t step) step {
	return step{
		At:          t.At,
		Seconds:     s.Seconds + t.Seconds,
		Waiting:     max(s.Waiting, t.Waiting), // at most
		Waits:       s.Waits + t.Waits,
		Ended:       s.Ended + t.Ended,
		WaitSeconds: s.WaitSeconds + t.WaitSeconds,
		Exhausted:   s.Exhausted + t.Exhausted,
		DialsFailed: s.DialsFailed + t.DialsFailed,
		Statements:  s.Statements + t.Statements,
		Opened:      s.Opened + t.Opened,
		OpenFailed:  s.OpenFailed + t.OpenFailed,
		Evicted:     s.Evicted + t.Evicted,
		Refused:     s.Refused + t.Refused,
	}
}

func (s step) rate(n uint64) float64 { return float64(n) / s.Seconds }

// Wait is the mean of the waits that ended, in seconds; 0 if there were none.
func (s step) Wait() float64 {
	if s.Ended == 0 {
		return 0
	}
	return s.WaitSeconds / float64(s.Ended)
}

// rowsOf gathers steps into n rows of about the same time, the latest first.
func rowsOf(steps []step, n int) (rows []step) {
	each := max(1, (len(steps)+n-1)/n)
	for end := len(steps); end > 0; end -= each {
		part := steps[max(0, end-each):end]
		row := part[0]
		for _, s := range part[1:] {
			row = row.add(s)
		}
		rows = append(rows, row)
	}
	return rows
}
