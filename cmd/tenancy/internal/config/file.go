package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// DefaultFile is the file that is read if it is there.
const DefaultFile = "tenancy.yaml"

// readFile reads a YAML file. It walks the nodes itself: the decoder's errors
// hold values, and a value may be a DSN.
func (s settings) readFile(name string, named bool, env func(string) (string, bool)) error {
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the configuration: %w", err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return fmt.Errorf("%s%s is no YAML; quote values that begin with a special character", name, lineOf(err))
	}
	if doc.Kind == 0 {
		return nil // empty
	}
	r := &reader{name: name, base: filepath.Dir(name), env: env, into: s}
	return r.walk(doc.Content[0], "")
}

var yamlLine = regexp.MustCompile(`line (\d+)`)

// lineOf takes the line, and nothing else, from YAML's error.
func lineOf(err error) string {
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		return ":" + m[1] + ":"
	}
	return ":"
}

// reader reads one file.
type reader struct {
	name, base string
	env        func(string) (string, bool)
	into       settings
}

func (r *reader) errorf(n *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %s", r.name, n.Line, fmt.Sprintf(format, args...))
}

// walk reads the node at a place: "" for the whole, "servers", "servers.db1".
func (r *reader) walk(n *yaml.Node, at string) error {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	known, leaf := children(at)
	if leaf {
		return r.scalar(n, at)
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		return r.errorf(n, "%s must have keys below it", placeName(at))
	}
	seen := map[string]bool{}
	for i := 0; i < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case key.Kind != yaml.ScalarNode || key.Value == "":
			return r.errorf(key, "a key is no text")
		case seen[key.Value]:
			return r.errorf(key, "the key %q is there twice", key.Value)
		case known != nil && !slices.Contains(known, key.Value):
			return r.errorf(key, "unknown key %q in %s; it has %s", key.Value, placeName(at), strings.Join(known, ", "))
		case at == "servers" && !serverName.MatchString(key.Value):
			return r.errorf(key, "the server's name is not made of letters, digits, - and _")
		}
		seen[key.Value] = true
		if err := r.walk(value, strings.TrimPrefix(at+"."+key.Value, ".")); err != nil {
			return err
		}
	}
	return nil
}

var serverName = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// children are the keys that a place has, nil for any; or it is a leaf.
func children(at string) (known []string, leaf bool) {
	parts := strings.Split(at, ".")
	switch {
	case at == "":
		return []string{"main", "servers", "migrations", "backups", "ready", "lease", "wait", "drain", "tombstones"}, false
	case at == "migrations":
		return []string{"main", "tenants"}, false
	case at == "servers":
		return nil, false
	case parts[0] == "servers" && len(parts) == 2:
		return append(slices.Clone(serverKeys), "settings"), false
	case parts[0] == "servers" && len(parts) == 3 && parts[2] == "settings":
		return nil, false
	}
	return nil, true
}

func placeName(at string) string {
	if at == "" {
		return "the file"
	}
	return at
}

func (r *reader) scalar(n *yaml.Node, at string) error {
	if n.Kind != yaml.ScalarNode {
		return r.errorf(n, "%s must be one value", at)
	}
	if n.Tag == "!!null" {
		return nil
	}
	text, err := r.expand(n, at, n.Value)
	if err != nil {
		return err
	}
	r.into[at] = value{text: text, from: fmt.Sprintf("%s:%d", r.name, n.Line), base: r.base}
	return nil
}

// expand puts environment variables into a value. It is done after the YAML was
// read, so that nothing in a password can be taken for YAML. A $ that no {
// follows is a $.
func (r *reader) expand(n *yaml.Node, at, text string) (string, error) {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(text, "${")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		name, rest, closed := strings.Cut(after, "}")
		if !closed {
			return "", r.errorf(n, "%s has a ${ without a }", at)
		}
		if strings.HasSuffix(before, "$") { // $${ is a ${
			b.WriteString("{" + name + "}")
			text = rest
			continue
		}
		v, ok := r.env(name)
		if !ok {
			return "", r.errorf(n, "%s: the environment has no %s", at, name)
		}
		b.WriteString(v)
		text = rest
	}
}
