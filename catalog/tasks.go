package catalog

// operation is how a task begins and what it does.
type operation struct {
	// from says in which states it may begin, and what the state is meanwhile.
	from map[State]State
	// over are the unfinished tasks that it may take the place of; it may
	// always go on with its own.
	over []Task
	// fences: the database goes out of service, so its generation is raised as
	// it begins, and what was opened before is of no use.
	fences bool
	steps  []step
	hint   string // what to do when it failed
}

// tasks is all that the catalog does in several steps. The crash tests kill a
// process before and after each one, by this table.
var tasks map[Task]operation

// An init, because the steps refer to what refers to the table.
func init() {
	provisioning := map[State]State{Provisioning: Provisioning}
	living := map[State]State{Provisioning: Deleting, Ready: Deleting, Active: Deleting, Suspended: Deleting,
		Moving: Deleting, Deleting: Deleting}
	goOn := "call Resume, or the same again, to go on, or Remove to clean up"
	tasks = map[Task]operation{
		TaskCreate: {
			from: provisioning,
			steps: []step{
				{"database", (*work).createDatabase},
				{"mark", (*work).mark},
				{"migrate", (*work).migrate},
				{"seed", (*work).seed},
				{"open", (*work).open},
				{"activate", (*work).activate},
			},
			hint: goOn,
		},
		TaskReady: {
			from: map[State]State{Provisioning: Provisioning, Ready: Provisioning},
			steps: []step{
				{"database", (*work).createDatabase},
				{"mark", (*work).mark},
				{"migrate", (*work).migrate},
				{"open", (*work).open},
				{"shelve", (*work).shelve},
			},
			hint: "call FillReady or Resume to go on",
		},
		TaskClaim: { // of a ready database, where there is a Seed
			from: provisioning,
			steps: []step{
				{"seed", (*work).seed},
				{"activate", (*work).activate},
			},
			hint: goOn,
		},
		TaskAdopt: {
			from: provisioning,
			steps: []step{
				{"check", (*work).checkAdopted},
				{"mark", (*work).markAny},
				{"migrate", (*work).migrateAdopted},
				{"open", (*work).open},
				{"activate", (*work).activate},
			},
			hint: "call Resume or Adopt to go on, or Remove to forget the tenant; its database stays",
		},
		TaskRestore: {
			from: provisioning,
			steps: []step{
				{"restore", (*work).restore},
				{"mark", (*work).markAny},
				{"migrate", (*work).migrate},
				{"open", (*work).open},
				{"activate", (*work).activate},
			},
			hint: "call Restore again with the dump, or Remove to clean up",
		},
		TaskSuspend: {
			from:   map[State]State{Active: Suspended, Suspended: Suspended},
			over:   []Task{TaskUnsuspend},
			fences: true,
			steps: []step{
				{"mark", (*work).mark},
				{"fence", (*work).fence},
				{"suspended", (*work).suspended},
			},
			hint: "it is refused by every process that heard; call Suspend or Resume again to make it sure",
		},
		TaskUnsuspend: {
			from: map[State]State{Suspended: Suspended},
			over: []Task{TaskSuspend},
			steps: []step{
				{"mark", (*work).mark}, // where a Suspend was left before it
				{"open", (*work).open},
				{"activate", (*work).activate},
			},
			hint: "call Unsuspend or Resume again",
		},
		TaskRename: {
			from:   map[State]State{Active: Moving, Suspended: Moving, Moving: Moving},
			fences: true,
			steps: []step{
				{"mark", (*work).markRenamed},
				{"fence", (*work).fenceRenamed},
				{"rename", (*work).rename},
				{"rename database", (*work).renameDatabase},
				{"open", (*work).openAgain},
				{"return", (*work).goBack},
			},
			hint: "call Rename or Resume again",
		},
		TaskMove: {
			from:   map[State]State{Active: Moving, Suspended: Moving, Moving: Moving},
			fences: true,
			steps: []step{
				{"mark", (*work).mark},
				{"fence", (*work).fenceMoved},
				{"copy", (*work).copyAway},
				{"switch", (*work).switchServer},
				{"open", (*work).openAgain},
				{"return", (*work).goBack},
			},
			hint: "call Resume or Move again to go on",
		},
		TaskRemove: {
			from:   living,
			over:   []Task{TaskCreate, TaskReady, TaskClaim, TaskAdopt, TaskRestore, TaskSuspend, TaskUnsuspend, TaskRename, TaskMove},
			fences: true,
			steps: []step{
				{"mark", (*work).markRemoved},
				{"fence", (*work).fenceRemoved},
				{"backup", (*work).backup},
				{"drop", (*work).drop},
				{"bury", (*work).bury},
			},
			hint: "call Remove or Resume again",
		},
	}
}
