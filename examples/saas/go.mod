module github.com/gorm-tenancy/tenancy/examples/saas

go 1.26.0

replace (
	github.com/gorm-tenancy/tenancy => ../..
	github.com/gorm-tenancy/tenancy/contrib/prometheus => ../../contrib/prometheus
	github.com/gorm-tenancy/tenancy/contrib/river => ../../contrib/river
	github.com/gorm-tenancy/tenancy/internal/browser => ../../internal/browser
)
