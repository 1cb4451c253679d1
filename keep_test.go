package tenancy_test

import (
	_ "gorm.io/plugin/dbresolver"
	_ "gorm.io/plugin/opentelemetry/tracing"
	_ "gorm.io/plugin/prometheus"
	_ "pgregory.net/rapid"
)
