module github.com/gorm-tenancy/tenancy/bench

go 1.25.0

require (
	github.com/gorm-tenancy/tenancy v0.0.0
	gorm.io/gorm v1.31.2
)

require (
	github.com/hashicorp/golang-lru/v2 v2.0.7 // indirect
	github.com/jinzhu/inflection v1.0.0 // indirect
	github.com/jinzhu/now v1.1.5 // indirect
	golang.org/x/text v0.41.0 // indirect
	gorm.io/plugin/dbresolver v1.6.2 // indirect
)

replace github.com/gorm-tenancy/tenancy => ../
