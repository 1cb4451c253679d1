package catalog

// At makes cfg call fn before and after each step.
func At(cfg *Config, fn func(task Task, step string, after bool)) { cfg.at = fn }

// Steps returns the steps of every task, by the table that runs them.
func Steps() map[Task][]string {
	all := map[Task][]string{}
	for task, op := range tasks {
		for _, s := range op.steps {
			all[task] = append(all[task], s.name)
		}
	}
	return all
}

// Transitions is the table.
func Transitions() map[State][]State { return transitions }
