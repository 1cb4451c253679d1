package tenancytest

import (
	"fmt"
	"reflect"
	"strings"
	"time"
)

// show writes v for a person: a row by those of its fields that are not zero.
func show(v reflect.Value) string { return showAt(v, 0) }

// showDepth is how many rows within rows are shown.
const showDepth = 2

func showAt(v reflect.Value, depth int) string {
	if !v.IsValid() {
		return "nothing"
	}
	if v.Type() == timeType && v.CanInterface() {
		return v.Interface().(time.Time).UTC().Format(time.RFC3339Nano)
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return "nil"
		}
		return showAt(v.Elem(), depth)
	case reflect.String:
		return fmt.Sprintf("%q", v.String())
	case reflect.Struct:
		return showStruct(v, depth)
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return fmt.Sprintf("%q", octets(v))
		}
		if depth >= showDepth {
			return fmt.Sprintf("[%d elements]", v.Len())
		}
		parts := make([]string, v.Len())
		for i := range parts {
			parts[i] = showAt(v.Index(i), depth+1)
		}
		return "[" + strings.Join(parts, " ") + "]"
	}
	return fmt.Sprint(v) // what a reflect.Value holds, also of a field that is not exported
}

func showStruct(v reflect.Value, depth int) string {
	if s, ok := stringer(v); ok {
		return s.String()
	}
	if depth >= showDepth {
		return "{...}"
	}
	var parts []string
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Type == stampType || v.Field(i).IsZero() {
			continue
		}
		inner := showAt(v.Field(i), depth+1)
		if f.Anonymous {
			parts = append(parts, strings.Trim(inner, "{}"))
			continue
		}
		parts = append(parts, f.Name+":"+inner)
	}
	return "{" + strings.Join(parts, " ") + "}"
}

// stringer is for types that are one value, such as decimals: a struct of
// which nothing is exported.
func stringer(v reflect.Value) (fmt.Stringer, bool) {
	for i := range v.NumField() {
		if v.Type().Field(i).IsExported() {
			return nil, false
		}
	}
	if !v.CanInterface() {
		return nil, false
	}
	s, ok := v.Interface().(fmt.Stringer)
	return s, ok
}
