package browser

// Home is the directory of the browser that runs.
func Home() string {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	return shared.p.home
}
