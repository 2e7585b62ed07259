package wire

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"unsafe"

	"github.com/leasehold/leasehold/internal/secret"
)

// wrong says what kind of value stands where another was expected. It does
// not repeat the value: that may be a secret in the wrong field.
func wrong(want string, v Value) error {
	return fmt.Errorf("expected %s, got %s", want, v.Kind())
}

func planString(p *plan) {
	p.text = func(q unsafe.Pointer, s string) error { *(*string)(q) = s; return nil }
	p.json = func(q unsafe.Pointer, v Value) error {
		s, ok := v.Text()
		if !ok {
			return wrong("a string", v)
		}
		*(*string)(q) = s
		return nil
	}
	p.null = func(q unsafe.Pointer) { *(*string)(q) = "" }
	p.app = func(dst []byte, q unsafe.Pointer, h *hashing) []byte { return h.text(dst, *(*string)(q), false) }
	p.empty = func(q unsafe.Pointer) bool { return *(*string)(q) == "" }
}

func planSecret(p *plan) {
	p.secret = true
	p.text = func(q unsafe.Pointer, s string) error { *(*secret.String)(q) = secret.New(s); return nil }
	p.json = func(q unsafe.Pointer, v Value) error {
		s, ok := v.Text()
		if !ok {
			return wrong("a string", v)
		}
		*(*secret.String)(q) = secret.New(s)
		return nil
	}
	p.null = func(q unsafe.Pointer) { *(*secret.String)(q) = secret.String{} }
	p.app = func(dst []byte, q unsafe.Pointer, h *hashing) []byte {
		return h.text(dst, (*secret.String)(q).Reveal(), true)
	}
	p.empty = func(q unsafe.Pointer) bool { return (*secret.String)(q).IsZero() }
}

func planBool(p *plan) {
	p.schema = "boolean"
	p.text = func(q unsafe.Pointer, s string) error {
		if s == "" {
			*(*bool)(q) = false
			return nil
		}
		b, err := strconv.ParseBool(s)
		if err != nil {
			return errors.New("expected true or false")
		}
		*(*bool)(q) = b
		return nil
	}
	p.json = func(q unsafe.Pointer, v Value) error {
		switch v.Kind() {
		case Bool:
			*(*bool)(q) = v[0] == 't'
		case Number:
			*(*bool)(q) = string(v) != "0"
		default:
			return wrong("true or false", v)
		}
		return nil
	}
	p.null = func(q unsafe.Pointer) { *(*bool)(q) = false }
	p.app = func(dst []byte, q unsafe.Pointer, _ *hashing) []byte { return strconv.AppendBool(dst, *(*bool)(q)) }
	p.empty = func(q unsafe.Pointer) bool { return !*(*bool)(q) }
}

func loadInt(q unsafe.Pointer, size uintptr) int64 {
	switch size {
	case 1:
		return int64(*(*int8)(q))
	case 2:
		return int64(*(*int16)(q))
	case 4:
		return int64(*(*int32)(q))
	}
	return *(*int64)(q)
}

func storeInt(q unsafe.Pointer, size uintptr, n int64) error {
	switch size {
	case 1:
		*(*int8)(q) = int8(n)
	case 2:
		*(*int16)(q) = int16(n)
	case 4:
		*(*int32)(q) = int32(n)
	default:
		*(*int64)(q) = n
	}
	if loadInt(q, size) != n {
		return errors.New("the number is too large")
	}
	return nil
}

func planInt(p *plan) {
	size := p.typ.Size()
	p.schema = "integer"
	p.text = func(q unsafe.Pointer, s string) error {
		if s == "" {
			return storeInt(q, size, 0)
		}
		n, err := strconv.ParseInt(s, 0, 64)
		if err != nil {
			return errors.New("expected a whole number")
		}
		return storeInt(q, size, n)
	}
	p.json = func(q unsafe.Pointer, v Value) error {
		if v.Kind() != Number {
			return wrong("a whole number", v)
		}
		n, err := whole(v)
		if err != nil {
			return err
		}
		return storeInt(q, size, n)
	}
	p.null = func(q unsafe.Pointer) { _ = storeInt(q, size, 0) }
	p.app = func(dst []byte, q unsafe.Pointer, _ *hashing) []byte {
		return strconv.AppendInt(dst, loadInt(q, size), 10)
	}
	p.empty = func(q unsafe.Pointer) bool { return loadInt(q, size) == 0 }
}

func loadUint(q unsafe.Pointer, size uintptr) uint64 {
	switch size {
	case 1:
		return uint64(*(*uint8)(q))
	case 2:
		return uint64(*(*uint16)(q))
	case 4:
		return uint64(*(*uint32)(q))
	}
	return *(*uint64)(q)
}

func storeUint(q unsafe.Pointer, size uintptr, n uint64) error {
	switch size {
	case 1:
		*(*uint8)(q) = uint8(n)
	case 2:
		*(*uint16)(q) = uint16(n)
	case 4:
		*(*uint32)(q) = uint32(n)
	default:
		*(*uint64)(q) = n
	}
	if loadUint(q, size) != n {
		return errors.New("the number is too large")
	}
	return nil
}

func planUint(p *plan) {
	size := p.typ.Size()
	p.schema = "integer"
	p.text = func(q unsafe.Pointer, s string) error {
		if s == "" {
			return storeUint(q, size, 0)
		}
		n, err := strconv.ParseUint(s, 0, 64)
		if err != nil {
			return errors.New("expected a whole number that is not negative")
		}
		return storeUint(q, size, n)
	}
	p.json = func(q unsafe.Pointer, v Value) error {
		if v.Kind() != Number {
			return wrong("a whole number", v)
		}
		if n, err := strconv.ParseUint(string(v), 10, 64); err == nil {
			return storeUint(q, size, n)
		}
		n, err := whole(v)
		if err != nil {
			return err
		}
		if n < 0 {
			return errNegative
		}
		return storeUint(q, size, uint64(n))
	}
	p.null = func(q unsafe.Pointer) { _ = storeUint(q, size, 0) }
	p.app = func(dst []byte, q unsafe.Pointer, _ *hashing) []byte {
		return strconv.AppendUint(dst, loadUint(q, size), 10)
	}
	p.empty = func(q unsafe.Pointer) bool { return loadUint(q, size) == 0 }
}

func planFloat(p *plan) {
	p.schema = "number"
	p.text = func(q unsafe.Pointer, s string) error {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			return errors.New("expected a number")
		}
		*(*float64)(q) = f
		return nil
	}
	p.json = func(q unsafe.Pointer, v Value) error {
		if v.Kind() != Number {
			return wrong("a number", v)
		}
		return p.text(q, string(v))
	}
	p.null = func(q unsafe.Pointer) { *(*float64)(q) = 0 }
	p.app = func(dst []byte, q unsafe.Pointer, _ *hashing) []byte {
		f := *(*float64)(q)
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return append(dst, "null"...)
		}
		return strconv.AppendFloat(dst, f, 'g', -1, 64)
	}
	p.empty = func(q unsafe.Pointer) bool { return *(*float64)(q) == 0 }
}
