package store

import (
	"database/sql"
	"fmt"
	"reflect"
	"strconv"

	"github.com/jackc/pgx/v5/pgtype"
)

// plain turns a value of a driver into nil, string, int64, float64 or bool.
func plain(v any) any {
	switch v := v.(type) {
	case []byte:
		return string(v)
	case int16:
		return int64(v)
	case int32:
		return int64(v)
	case int:
		return int64(v)
	case uint64:
		return int64(v)
	case float32:
		return float64(v)
	case pgtype.Numeric: // a sum
		if n, err := v.Int64Value(); err == nil && n.Valid {
			return n.Int64
		}
		if f, err := v.Float64Value(); err == nil && f.Valid {
			return f.Float64
		}
	}
	return v
}

// assign is Scan of one column for a plain value.
func assign(dest, value any) error {
	switch d := dest.(type) {
	case sql.Scanner:
		return d.Scan(value)
	case *any:
		*d = value
		return nil
	case *string:
		if v, ok := value.(string); ok {
			*d = v
			return nil
		}
	case *int64:
		if v, ok := value.(int64); ok {
			*d = v
			return nil
		}
	case *[]byte:
		if value == nil {
			*d = nil
			return nil
		}
		if v, ok := value.(string); ok {
			*d = []byte(v)
			return nil
		}
	}
	to := reflect.ValueOf(dest)
	if to.Kind() != reflect.Pointer || to.IsNil() {
		return fmt.Errorf("a column cannot be scanned into %T", dest)
	}
	if to = to.Elem(); to.Kind() == reflect.Pointer {
		if value == nil {
			to.SetZero()
			return nil
		}
		to.Set(reflect.New(to.Type().Elem()))
		return assign(to.Interface(), value)
	}
	switch v := value.(type) {
	case string:
		switch {
		case to.Kind() == reflect.String:
			to.SetString(v)
			return nil
		case to.Kind() == reflect.Slice && to.Type().Elem().Kind() == reflect.Uint8:
			to.SetBytes([]byte(v))
			return nil
		case to.CanInt(): // a sum
			if n, err := strconv.ParseInt(v, 10, 64); err == nil {
				return assign(dest, n)
			}
		}
	case int64:
		switch {
		case to.CanInt() && !to.OverflowInt(v):
			to.SetInt(v)
			return nil
		case to.CanUint() && v >= 0 && !to.OverflowUint(uint64(v)):
			to.SetUint(uint64(v))
			return nil
		case to.CanFloat():
			to.SetFloat(float64(v))
			return nil
		case to.Kind() == reflect.Bool:
			to.SetBool(v != 0)
			return nil
		case to.Kind() == reflect.String:
			to.SetString(strconv.FormatInt(v, 10))
			return nil
		}
	case float64:
		if to.CanFloat() {
			to.SetFloat(v)
			return nil
		}
	case bool:
		if to.Kind() == reflect.Bool {
			to.SetBool(v)
			return nil
		}
	}
	return fmt.Errorf("%T cannot be scanned into %T", value, dest)
}

// each gives rows to a question's function.
func (a answer) each(row func(scan func(...any) error) error) error {
	for _, values := range a {
		if err := row(func(dest ...any) error {
			if len(dest) != len(values) {
				return fmt.Errorf("%d columns are scanned into %d", len(values), len(dest))
			}
			for i, d := range dest {
				if err := assign(d, values[i]); err != nil {
					return fmt.Errorf("column %d: %w", i+1, err)
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}
