// Package config is the configuration of the stock command: a file,
// environment variables and flags.
package config

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Config is the configuration. Its values may hold passwords: don't print it.
type Config struct {
	// Main is the main database: a PostgreSQL DSN, or "sqlite:" and a path.
	Main string
	// Servers are those of the tenants' databases, by their names.
	Servers map[string]Server
	// MainMigrations and TenantMigrations are directories with SQL files.
	MainMigrations, TenantMigrations string
	// Backups is the directory that backups are written to; "" for none.
	Backups string
	// Ready, Lease, Wait, Drain and Tombstones are catalog.Config's.
	Ready                          int
	Lease, Wait, Drain, Tombstones time.Duration
}

// Server is one server.
type Server struct {
	App, Admin, BinDir string // PostgreSQL
	Settings           map[string]string
	Dir                string // SQLite
}

// value is a setting, and where it came from.
type value struct {
	text string
	from string // "tenancy.yaml:3", "TENANCY_MAIN", "--main"
	base string // the directory that a path is relative to; "" for the working directory
}

// settings are the values by their keys: "main", "servers.db1.app". A later
// source takes the place of an earlier one, key by key.
type settings map[string]value

// scalars are the keys that have one value, and no name in them.
var scalars = []string{"main", "migrations.main", "migrations.tenants", "backups", "ready", "lease", "wait", "drain", "tombstones"}

// serverKeys are the keys of one server. One more is settings, which has any.
var serverKeys = []string{"app", "admin", "bin_dir", "dir"}

// paths are the keys, or their last parts, whose values are paths.
var paths = []string{"migrations.main", "migrations.tenants", "backups", "bin_dir", "dir"}

// Load reads the configuration. Flags precede the environment, which precedes
// the file. No error holds a value.
func Load(src Sources) (*Config, error) {
	s := settings{}
	file, named := src.file()
	if err := s.readFile(file, named, src.Env); err != nil {
		return nil, err
	}
	s.readEnv(src.Environ)
	if err := s.readFlags(src.Flags); err != nil {
		return nil, err
	}
	return s.config()
}

// config makes a Config of the settings.
func (s settings) config() (*Config, error) {
	cfg := &Config{Servers: map[string]Server{}}
	for _, key := range slices.Sorted(maps.Keys(s)) {
		if err := cfg.set(strings.Split(key, "."), key, s[key]); err != nil {
			return nil, err
		}
	}
	return cfg, cfg.validate()
}

func (cfg *Config) set(parts []string, key string, v value) (err error) {
	text := v.text
	if slices.Contains(paths, key) || slices.Contains(paths, parts[len(parts)-1]) && len(parts) == 3 {
		text = v.path(text)
	}
	switch key {
	case "main":
		if file, ok := strings.CutPrefix(text, "sqlite:"); ok {
			text = "sqlite:" + v.path(file)
		}
		cfg.Main = text
	case "migrations.main":
		cfg.MainMigrations = text
	case "migrations.tenants":
		cfg.TenantMigrations = text
	case "backups":
		cfg.Backups = text
	case "ready":
		if cfg.Ready, err = strconv.Atoi(text); err != nil || cfg.Ready < 0 {
			return fmt.Errorf("%s: ready is no number", v.from)
		}
	case "lease":
		cfg.Lease, err = v.duration("lease")
	case "wait":
		cfg.Wait, err = v.duration("wait")
	case "drain":
		cfg.Drain, err = v.duration("drain")
	case "tombstones":
		cfg.Tombstones, err = v.duration("tombstones")
	default: // servers.NAME.KEY, or servers.NAME.settings.SETTING
		server := cfg.Servers[parts[1]]
		switch parts[2] {
		case "app":
			server.App = text
		case "admin":
			server.Admin = text
		case "bin_dir":
			server.BinDir = text
		case "dir":
			server.Dir = text
		case "settings":
			if server.Settings == nil {
				server.Settings = map[string]string{}
			}
			server.Settings[strings.Join(parts[3:], ".")] = text
		}
		cfg.Servers[parts[1]] = server
	}
	return err
}

// path makes a relative path one of the directory that the file is in.
func (v value) path(p string) string {
	if p == "" || v.base == "" || filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(v.base, p)
}

func (v value) duration(key string) (time.Duration, error) {
	d, err := time.ParseDuration(v.text)
	if err != nil { // its text has the value
		return 0, fmt.Errorf("%s: %s is no duration like 30s or 5m", v.from, key)
	}
	return d, nil
}

// validate says what is missing, and how to set it.
func (cfg *Config) validate() error {
	if cfg.Main == "" {
		return fmt.Errorf("the main database is not configured; set main in %s or the variable %s", DefaultFile, envName("main"))
	}
	if len(cfg.Servers) == 0 {
		return fmt.Errorf("no server is configured; set servers in %s", DefaultFile)
	}
	sqlite := strings.HasPrefix(cfg.Main, "sqlite:")
	for _, name := range slices.Sorted(maps.Keys(cfg.Servers)) {
		server := cfg.Servers[name]
		switch {
		case server.Dir != "" && (server.App != "" || server.Admin != ""):
			return fmt.Errorf("server %s has a dir, which is SQLite's, and a DSN; leave one of them out", name)
		case sqlite && server.Dir == "":
			return fmt.Errorf("server %s has no dir, and the main database is on SQLite; they must be of one kind", name)
		case !sqlite && server.Dir != "":
			return fmt.Errorf("server %s has a dir, which is SQLite's, and main is no sqlite:PATH; they must be of one kind", name)
		case !sqlite && server.App == "":
			return fmt.Errorf("server %s has no app, the DSN of the application", name)
		}
	}
	return nil
}
