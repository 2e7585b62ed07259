package wire

import (
	"fmt"
	"iter"
	"reflect"
	"unsafe"

	"github.com/leasehold/leasehold/internal/errs"
)

// Items is a list that stays text: an entry becomes a T when it is looked at,
// and text as it is added. A batch of a hundred thousand entries then takes no
// more memory than its text. One that came in a body is that part of the body,
// as Text is, and is looked at while the request is answered and not kept.
type Items[T any] struct {
	text Value
	plan *plan // of T, while the list is written
}

// Set reports whether there is a list, be it an empty one. Null is none.
func (l Items[T]) Set() bool { return l.text != nil }

// All decodes the entries one after another. Each is given in the same place,
// which the next one takes. One that cannot be read ends them with an
// errs.Invalid, as does one too many.
func (l Items[T]) All() iter.Seq2[*T, error] {
	return func(yield func(*T, error) bool) {
		if l.text == nil {
			return
		}
		p, into, n := planOf(reflect.TypeFor[T]()), new(T), 0
		for it := (elements{b: l.text, i: 1, valid: true}); it.begin(); n++ {
			if n == mostEntries {
				yield(nil, errs.New(errs.Invalid, "a list has more than %d entries; send them in several requests", mostEntries))
				return
			}
			*into = *new(T)
			if err := p.decodeNext(unsafe.Pointer(into), &it); err != nil {
				yield(nil, asInvalid(fmt.Errorf("entry %d of a list: %w", n, err)))
				return
			}
			if !yield(into, nil) {
				return
			}
		}
	}
}

// NewItems begins a list that is written into buf's memory. It is a list once
// it was closed.
func NewItems[T any](buf []byte) Items[T] {
	return Items[T]{text: append(buf[:0], '['), plan: planOf(reflect.TypeFor[T]())}
}

// Add writes an entry behind those that there are.
func (l *Items[T]) Add(v *T) {
	if len(l.text) > 1 {
		l.text = append(l.text, ',')
	}
	l.text = l.plan.app(l.text, unsafe.Pointer(v), nil)
}

// Close ends the list, and gives its memory for the next one.
func (l *Items[T]) Close() []byte {
	l.text, l.plan = append(l.text, ']'), nil
	return l.text
}

func (l Items[T]) entry() reflect.Type { return reflect.TypeFor[T]() }

// items is what the plan of any Items lies over.
type items struct {
	text Value
	plan *plan
}

func (c compiler) planItems(p *plan) {
	p.elem = c.plan(reflect.Zero(p.typ).Interface().(interface{ entry() reflect.Type }).entry())
	p.schema, p.secret = "array", p.elem.secret
	p.json = func(q unsafe.Pointer, v Value) error {
		if v.Kind() != Array {
			return wrong("a list", v)
		}
		*(*items)(q) = items{text: v}
		return nil
	}
	p.null = func(q unsafe.Pointer) { *(*items)(q) = items{} }
	p.app = func(dst []byte, q unsafe.Pointer, h *hashing) []byte {
		l := (*items)(q)
		if l.plan != nil {
			panic("wire: a list is written that was not closed")
		}
		return h.value(dst, l.text)
	}
	p.empty = func(q unsafe.Pointer) bool { return (*items)(q).text == nil }
}
