package browser

import (
	"errors"
	"os"
	"path/filepath"
)

// names are the browser's programs as packages call them. scripts/setup.sh looks
// for the same, in the same places.
var names = []string{
	"chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "headless-shell", "chrome-headless-shell",
}

// places are where packages put them, besides PATH.
var places = []string{"/usr/bin", "/usr/local/bin", "/opt/google/chrome", "/usr/lib/chromium", "/headless-shell"}

// apps are the programs in macOS's applications.
var apps = []string{
	"/Applications/Chromium.app/Contents/MacOS/Chromium",
	"/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
}

var errNone = errors.New("no Chromium and no Chrome was found")

// find returns the browser's program: PATH's first, else a packaged one.
func find() (string, error) {
	return findIn(append(filepath.SplitList(os.Getenv("PATH")), places...), apps)
}

func findIn(dirs, files []string) (string, error) {
	for _, name := range names {
		for _, dir := range dirs {
			if filepath.IsAbs(dir) && usable(filepath.Join(dir, name)) {
				return filepath.Join(dir, name), nil
			}
		}
	}
	for _, file := range files {
		if usable(file) {
			return file, nil
		}
	}
	return "", errNone
}

// usable reports whether file is a program, and no snap: those see neither a
// profile in /tmp nor the pipes that the browser is talked to by. Ubuntu's
// package chromium-browser is a script that starts the snap, or says how to
// install it.
func usable(file string) bool {
	info, err := os.Stat(file)
	if err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0 {
		return false
	}
	real, err := filepath.EvalSymlinks(file)
	return err == nil && filepath.Base(real) != "snap" && !stub(real)
}
