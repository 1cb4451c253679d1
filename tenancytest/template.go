package tenancytest

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"io/fs"
	"slices"
	"sync"

	"gorm.io/gorm"
	"gorm.io/gorm/schema"

	"github.com/gorm-tenancy/tenancy/migrate"
)

// templateFormat changes when what this package puts into a template does.
const templateFormat = "1"

// The roles of databases.
const (
	roleMain   = "main"
	roleTenant = "tenant"
)

// fingerprinted is a Migrator that can promise that its fingerprint changes
// with all that it does.
type fingerprinted interface {
	fingerprint() (string, error)
}

// bindable is a Migrator that needs to know the Server.
type bindable interface {
	bind(s Server, c Config) migrate.Migrator
}

// newStock returns a stock of copies of m's template on s.
func newStock(ctx context.Context, s Server, c Config, role string, m migrate.Migrator) (*stock, error) {
	if b, ok := m.(bindable); ok {
		m = b.bind(s, c)
	}
	version, target := m.Target()
	content := c.Fingerprint
	if f, ok := m.(fingerprinted); ok {
		own, err := f.fingerprint()
		if err != nil {
			return nil, fmt.Errorf("tenancytest: the %s template: %w", role, err)
		}
		content = digest(content, own)
	}
	parts := []string{"tenancytest", templateFormat, role, fmt.Sprint(version), target, content}
	if role == roleTenant { // which tables it has not is looked at when it is made
		tables, err := mainTables(c)
		if err != nil {
			return nil, err
		}
		parts = append(parts, tables...)
	}
	key := digest(parts...)
	name, err := s.Template(ctx, key, content != "", func(ctx context.Context, db *sql.DB) error {
		if _, err := m.Up(ctx, db, version); err != nil || role != roleTenant {
			return err
		}
		return noMainTable(ctx, s, c, db)
	})
	if err != nil {
		return nil, fmt.Errorf("tenancytest: the %s template: %w", role, err)
	}
	return &stock{server: s, template: name, version: version}, nil
}

// noMainTable returns an error if a tenant's database has the table of a main
// model: AutoMigrate also creates what its models refer to (gorm
// migrator/migrator.go, ReorderModels), where the plugin would refuse it.
func noMainTable(ctx context.Context, s Server, c Config, db *sql.DB) error {
	g, err := gorm.Open(s.Dialector(db), c.gorm())
	if err != nil {
		return err
	}
	for _, model := range c.MainModels {
		if g.WithContext(ctx).Migrator().HasTable(model) {
			return fmt.Errorf("Config.Migrator makes the table of the main model %T in a tenant's database; "+
				"where a tenant's model refers to it, tag that field `gorm:\"constraint:-\"`", model)
		}
	}
	return nil
}

// mainTables returns the tables of the main models.
func mainTables(c Config) (tables []string, err error) {
	namer := namer(c.gorm())
	for _, model := range c.MainModels {
		table, is := model.(string)
		if !is {
			s, err := schema.Parse(model, &sync.Map{}, namer)
			if err != nil {
				return nil, fmt.Errorf("tenancytest: the main model %T: %w", model, err)
			}
			table = s.Table
		}
		tables = append(tables, table)
	}
	slices.Sort(tables)
	return tables, nil
}

// namer is what gorm.Open would take.
func namer(config *gorm.Config) schema.Namer {
	if config.NamingStrategy != nil {
		return config.NamingStrategy
	}
	return schema.NamingStrategy{IdentifierMaxLength: 64}
}

// digest returns 20 characters that stand for parts.
func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))[:20]
}

// HashFS returns a fingerprint of the names and contents of all files in fsys:
// for [Config.Fingerprint], of migrations that are files.
//
//	//go:embed migrations/*.sql
//	var files embed.FS
//
// It panics if a file can't be read, which those of an embed.FS always can.
func HashFS(fsys fs.FS) string {
	var parts []string
	err := fs.WalkDir(fsys, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := fs.ReadFile(fsys, path)
		parts = append(parts, path, string(content))
		return err
	})
	if err != nil {
		panic(fmt.Sprintf("tenancytest: HashFS: %v", err))
	}
	return digest(parts...)
}
