package config

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// Sources are where a configuration comes from.
type Sources struct {
	// Flags are those of [AddFlags], parsed.
	Flags *pflag.FlagSet
	// Environ is as os.Environ, and Env as os.LookupEnv.
	Environ []string
	Env     func(string) (string, bool)
}

// FromProcess are those of this process.
func FromProcess(flags *pflag.FlagSet) Sources {
	return Sources{Flags: flags, Environ: os.Environ(), Env: os.LookupEnv}
}

// prefix is that of all environment variables.
const prefix = "TENANCY_"

// envName is the environment variable of a key.
func envName(key string) string {
	return prefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// AddFlags adds the flags of the configuration. There is one for a DSN too, for
// a try on one's own machine: whoever may run ps sees it.
func AddFlags(flags *pflag.FlagSet) {
	flags.String("config", "", "the configuration file (default "+DefaultFile+", if it is there)")
	flags.String("main", "", "the main database; better in the file or "+envName("main")+": ps shows flags")
	flags.String("migrations-main", "", "the directory of the main database's migrations")
	flags.String("migrations-tenants", "", "the directory of the tenants' migrations")
	flags.String("backups", "", "the directory that backups are written to")
	flags.Int("ready-databases", 0, "how many ready databases are kept on each server")
	flags.Duration("lease", 0, "how long a process may be silent before its work is taken over")
	flags.StringToString("dir", nil, "a server on SQLite: name=directory")
}

// flagKeys are the keys of the flags that have another name.
var flagKeys = map[string]string{"migrations-main": "migrations.main", "migrations-tenants": "migrations.tenants", "ready-databases": "ready"}

// file is the file's name, and whether somebody named it.
func (src Sources) file() (name string, named bool) {
	if f := src.Flags.Lookup("config"); f != nil && f.Changed {
		return f.Value.String(), true
	}
	if name, ok := src.Env(envName("config")); ok && name != "" {
		return name, true
	}
	return DefaultFile, false
}

// readEnv reads the environment. TENANCY_SERVERS_DB1_APP is servers.db1.app: a
// server that the file has is meant in any spelling of its name, any other one
// is called as the variable says, in lower case.
func (s settings) readEnv(environ []string) {
	for _, kv := range environ {
		name, text, _ := strings.Cut(kv, "=")
		rest, ours := strings.CutPrefix(name, prefix)
		if !ours || text == "" {
			continue
		}
		key := ""
		if i := slices.IndexFunc(scalars, func(key string) bool { return envName(key) == name }); i >= 0 {
			key = scalars[i]
		} else if server, ok := strings.CutPrefix(rest, "SERVERS_"); ok {
			key = s.serverKey(server)
		}
		if key != "" { // others may be another program's: Kubernetes makes TENANCY_PORT of a service
			s[key] = value{text: text, from: name}
		}
	}
}

func (s settings) serverKey(variable string) string {
	for _, key := range serverKeys {
		upper, ok := strings.CutSuffix(variable, "_"+strings.ToUpper(key))
		if !ok || upper == "" {
			continue
		}
		for known := range s {
			parts := strings.Split(known, ".")
			if parts[0] == "servers" && strings.ToUpper(strings.ReplaceAll(parts[1], "-", "_")) == upper {
				return "servers." + parts[1] + "." + key
			}
		}
		return "servers." + strings.ToLower(upper) + "." + key
	}
	return ""
}

func (s settings) readFlags(flags *pflag.FlagSet) (err error) {
	// Not Visit: a flag that all commands have was set in a command's own set.
	flags.VisitAll(func(f *pflag.Flag) {
		if !f.Changed {
			return
		}
		key := f.Name
		if other, ok := flagKeys[key]; ok {
			key = other
		}
		if key == "dir" {
			dirs, dirErr := flags.GetStringToString("dir")
			if dirErr != nil {
				err = dirErr
			}
			for name, dir := range dirs {
				if !serverName.MatchString(name) {
					err = fmt.Errorf("--dir: the server's name is not made of letters, digits, - and _")
					return
				}
				s["servers."+name+".dir"] = value{text: dir, from: "--dir"}
			}
			return
		}
		if slices.Contains(scalars, key) {
			s[key] = value{text: f.Value.String(), from: "--" + f.Name}
		}
	})
	return err
}
