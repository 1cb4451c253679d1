package tenancytest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"gorm.io/gorm"
	"gorm.io/gorm/schema"

	"github.com/gorm-tenancy/tenancy/migrate"
)

// AutoMigrate returns a Migrator for [Config] that lets GORM's AutoMigrate make
// the tables of models, which suits applications that have no migrations yet.
//
// Its fingerprint is what GORM parses of the models, their associations and
// GORM's NamingStrategy: tables, columns, indexes, constraints. What a model's
// methods do in the database, a GormDBDataType for instance, is not seen: set
// [Config.Fingerprint] there.
func AutoMigrate(models ...any) migrate.Migrator { return &autoMigrator{models: slices.Clone(models)} }

type autoMigrator struct {
	models []any
	server Server // nil unless bound
	config Config
}

var errUnbound = errors.New("tenancytest: AutoMigrate is for tenancytest.Config only; elsewhere, use migrate.Func")

func (a *autoMigrator) bind(s Server, c Config) migrate.Migrator {
	return &autoMigrator{models: a.models, server: s, config: c}
}

// Target returns no version: there is only one schema.
func (a *autoMigrator) Target() (int64, string) { return 0, "automigrate" }

func (a *autoMigrator) Current(context.Context, *sql.DB) (int64, error) { return 0, errUnbound }

func (a *autoMigrator) Up(ctx context.Context, db *sql.DB, _ int64) ([]migrate.Applied, error) {
	if a.server == nil {
		return nil, errUnbound
	}
	g, err := gorm.Open(a.server.Dialector(db), a.config.gorm())
	if err != nil {
		return nil, err
	}
	return nil, g.WithContext(ctx).AutoMigrate(a.models...)
}

func (a *autoMigrator) fingerprint() (string, error) {
	if a.server == nil {
		return "", errUnbound
	}
	config := a.config.gorm()
	p := parser{cache: &sync.Map{}, namer: namer(config), seen: map[string]bool{}}
	p.say("options", config.DisableForeignKeyConstraintWhenMigrating, config.IgnoreRelationshipsWhenMigrating)
	for _, m := range a.models {
		s, err := schema.Parse(m, p.cache, p.namer)
		if err != nil {
			return "", fmt.Errorf("AutoMigrate: %T is not a model: %w", m, err)
		}
		p.schema(s)
	}
	return digest(p.said...), nil
}

// parser says what AutoMigrate would look at.
type parser struct {
	cache *sync.Map
	namer schema.Namer
	seen  map[string]bool
	said  []string
}

func (p *parser) say(values ...any) { p.said = append(p.said, fmt.Sprintf("%#v", values)) }

func (p *parser) schema(s *schema.Schema) {
	if s == nil || p.seen[s.Table+" "+s.ModelType.String()] {
		return
	}
	p.seen[s.Table+" "+s.ModelType.String()] = true
	p.say("table", s.Table)
	for _, f := range s.Fields {
		var tags []string
		for _, k := range slices.Sorted(maps.Keys(f.TagSettings)) {
			tags = append(tags, k+"="+f.TagSettings[k])
		}
		p.say("field", f.DBName, f.DataType, f.GORMDataType, f.FieldType.String(), f.Size, f.Precision, f.Scale, f.PrimaryKey,
			f.AutoIncrement, f.NotNull, f.Unique, f.HasDefaultValue, f.DefaultValue, f.Comment, f.IgnoreMigration, strings.Join(tags, ";"))
	}
	for _, index := range s.ParseIndexes() {
		p.say("index", index.Name, index.Class, index.Type, index.Where, index.Comment, index.Option)
		for _, f := range index.Fields {
			p.say("on", f.DBName, f.Expression, f.Sort, f.Collate, f.Length)
		}
	}
	checks := s.ParseCheckConstraints()
	for _, name := range slices.Sorted(maps.Keys(checks)) {
		p.say("check", name, checks[name].Constraint)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Relationships.Relations)) {
		rel := s.Relationships.Relations[name]
		if c := rel.ParseConstraint(); c != nil {
			p.say("constraint", c.Name, c.OnDelete, c.OnUpdate)
		}
		p.schema(rel.JoinTable)
		p.schema(rel.FieldSchema)
	}
}
