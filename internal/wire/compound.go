package wire

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unsafe"
)

// decodeInto gives a value of plan p its JSON.
func (p *plan) decodeInto(q unsafe.Pointer, v Value) error {
	switch v.Kind() {
	case Null:
		if p.null != nil {
			p.null(q)
		}
		return nil
	case String:
		if p.raw != nil && bytes.IndexByte(v, '\\') < 0 {
			p.raw(q, v[1:len(v)-1])
			return nil
		}
		if p.text != nil {
			return p.text(q, unquote(v[1:len(v)-1]))
		}
	}
	return p.json(q, v)
}

// decodeNext decodes the element that it stands before, and goes behind it. An
// object is walked through once, and not looked for the end of before.
func (p *plan) decodeNext(q unsafe.Pointer, it *elements) (err error) {
	if p.typ.Kind() == reflect.Struct && len(p.fields) > 0 && it.i < len(it.b) && it.b[it.i] == '{' {
		it.i, err = p.object(q, it.b, it.i)
		return err
	}
	end := jump(it.b, it.i)
	v := Value(it.b[it.i:end])
	it.i = end
	return p.decodeInto(q, v)
}

func (c compiler) planOpt(p *plan) {
	value, ok := p.typ.FieldByName("Value")
	set, ok2 := p.typ.FieldByName("Set")
	if !ok || !ok2 {
		panic("wire: " + p.typ.String() + " is no Opt")
	}
	in := c.plan(value.Type)
	mark := func(q unsafe.Pointer) { *(*bool)(unsafe.Add(q, set.Offset)) = true }
	p.elem, p.schema = in, in.schema
	// An inner plan that is still being made (a type within itself) cannot
	// stand in an Opt, so what it can do is known here.
	if p.secret = in.secret; in.text != nil {
		p.text = func(q unsafe.Pointer, s string) error {
			mark(q)
			return in.text(unsafe.Add(q, value.Offset), s)
		}
	}
	if in.raw != nil {
		p.raw = func(q unsafe.Pointer, b []byte) {
			mark(q)
			in.raw(unsafe.Add(q, value.Offset), b)
		}
	}
	p.json = func(q unsafe.Pointer, v Value) error {
		mark(q)
		return in.json(unsafe.Add(q, value.Offset), v)
	}
	p.null = func(q unsafe.Pointer) {
		reflect.NewAt(p.typ, q).Elem().SetZero()
		mark(q)
	}
	p.app = func(dst []byte, q unsafe.Pointer, h *hashing) []byte {
		if !*(*bool)(unsafe.Add(q, set.Offset)) {
			return append(dst, "null"...)
		}
		return in.app(dst, unsafe.Add(q, value.Offset), h)
	}
	p.empty = func(q unsafe.Pointer) bool { return !*(*bool)(unsafe.Add(q, set.Offset)) }
}

func (c compiler) planPointer(p *plan) {
	in := c.plan(p.typ.Elem())
	p.elem = in
	p.schema = in.schema
	p.json = func(q unsafe.Pointer, v Value) error {
		fresh := reflect.New(in.typ)
		if err := in.decodeInto(fresh.UnsafePointer(), v); err != nil {
			return err
		}
		*(*unsafe.Pointer)(q) = fresh.UnsafePointer()
		return nil
	}
	p.null = func(q unsafe.Pointer) { *(*unsafe.Pointer)(q) = nil }
	p.app = func(dst []byte, q unsafe.Pointer, h *hashing) []byte {
		to := *(*unsafe.Pointer)(q)
		if to == nil {
			return append(dst, "null"...)
		}
		return in.app(dst, to, h)
	}
	p.empty = func(q unsafe.Pointer) bool { return *(*unsafe.Pointer)(q) == nil }
}

// sliceHeader is the first word of every slice's three, whatever its element.
type sliceHeader struct {
	data unsafe.Pointer
	len  int
	cap  int
}

// A list of what is much larger in memory than it may be on the wire has so
// many entries at most: `{}` is three bytes of a body.
const (
	smallEntry  = 64 // bytes in memory
	mostEntries = 1 << 17
)

func (c compiler) planSlice(p *plan) {
	in := c.plan(p.typ.Elem())
	size := p.typ.Elem().Size()
	p.elem, p.schema, p.secret = in, "array", in.secret
	p.json = func(q unsafe.Pointer, v Value) error {
		if v.Kind() != Array {
			return wrong("a list", v)
		}
		out, n := reflect.MakeSlice(p.typ, 0, 0), 0
		for it := (elements{b: v, i: 1, valid: true}); it.next(); n++ {
			if n == out.Cap() {
				// As many more as the rest has room for, if they are like this one.
				room := n + 1 + (len(v)-it.i)/(len(it.val)+1)
				if size > smallEntry {
					if n >= mostEntries {
						return fmt.Errorf("a list has more than %d entries; send them in several requests", mostEntries)
					}
					room = min(room, mostEntries)
				}
				more := reflect.MakeSlice(p.typ, room, room)
				reflect.Copy(more, out)
				out = more
			}
			if err := in.decodeInto(unsafe.Add(out.UnsafePointer(), uintptr(n)*size), it.val); err != nil {
				return err
			}
		}
		reflect.NewAt(p.typ, q).Elem().Set(out.Slice(0, n))
		return nil
	}
	if p.typ.Elem().Kind() == reflect.String || in.text != nil {
		// A single text is a list of one, as a query has it.
		p.text = func(q unsafe.Pointer, s string) error {
			out := reflect.MakeSlice(p.typ, 1, 1)
			if err := in.text(out.Index(0).Addr().UnsafePointer(), s); err != nil {
				return err
			}
			reflect.NewAt(p.typ, q).Elem().Set(out)
			return nil
		}
	}
	p.null = func(q unsafe.Pointer) { *(*sliceHeader)(q) = sliceHeader{} }
	p.app = func(dst []byte, q unsafe.Pointer, h *hashing) []byte {
		s := (*sliceHeader)(q)
		dst = append(dst, '[')
		for i := range s.len {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = in.app(dst, unsafe.Add(s.data, uintptr(i)*size), h)
		}
		return append(dst, ']')
	}
	p.empty = func(q unsafe.Pointer) bool { return (*sliceHeader)(q).len == 0 }
}

func (c compiler) planMap(p *plan) {
	t := p.typ
	if t.Key().Kind() != reflect.String {
		panic("wire: " + t.String() + ": keys of maps must be strings")
	}
	in := c.plan(t.Elem())
	p.elem, p.schema, p.secret = in, "object", in.secret
	p.json = func(q unsafe.Pointer, v Value) error {
		if v.Kind() != Obj {
			return wrong("an object", v)
		}
		m := reflect.MakeMap(t)
		for k, e := range Object(v).All() {
			fresh := reflect.New(t.Elem())
			if err := in.decodeInto(fresh.UnsafePointer(), e); err != nil {
				return fmt.Errorf("%s: %w", clip(k), err)
			}
			m.SetMapIndex(reflect.ValueOf(k).Convert(t.Key()), fresh.Elem())
		}
		reflect.NewAt(t, q).Elem().Set(m)
		return nil
	}
	p.null = func(q unsafe.Pointer) { *(*unsafe.Pointer)(q) = nil }
	p.empty = func(q unsafe.Pointer) bool { return reflect.NewAt(t, q).Elem().Len() == 0 }
	if t.Elem().Kind() == reflect.String && !in.secret {
		p.app = func(dst []byte, q unsafe.Pointer, h *hashing) []byte {
			return appendStringMap(dst, *(*map[string]string)(q), h)
		}
		return
	}
	p.app = func(dst []byte, q unsafe.Pointer, h *hashing) []byte {
		m := reflect.NewAt(t, q).Elem()
		keys := m.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		slot := reflect.New(t.Elem())
		dst = append(dst, '{')
		top := h.enter()
		for i, k := range keys {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(AppendString(dst, k.String()), ':')
			slot.Elem().Set(m.MapIndex(k))
			h.at(top, k.String())
			dst = in.app(dst, slot.UnsafePointer(), h)
		}
		h.leave(top)
		return append(dst, '}')
	}
}

func planData(p *plan) {
	p.json = func(_ unsafe.Pointer, v Value) error { return wrong("nothing", v) }
	p.app = func(dst []byte, q unsafe.Pointer, h *hashing) []byte {
		return h.data(dst, *(*Data)(q))
	}
	p.empty = func(q unsafe.Pointer) bool { return *(*Data)(q) == nil }
}

func (c compiler) planStruct(p *plan) {
	p.schema = "object"
	c.addFields(p, p.typ, 0)
	if len(p.fields) > fewFields {
		p.byName = make(map[string]int, len(p.fields))
		for i, f := range p.fields {
			p.byName[f.name] = i
		}
	}
	p.json = func(q unsafe.Pointer, v Value) error {
		if v.Kind() != Obj {
			return wrong("an object", v)
		}
		_, err := p.object(q, v, 0)
		return err
	}
	p.null = func(q unsafe.Pointer) { reflect.NewAt(p.typ, q).Elem().SetZero() }
	p.app = p.appendStruct
	p.empty = func(unsafe.Pointer) bool { return false }
}

// fewFields are looked through faster than a map.
const fewFields = 16

// object decodes the object that begins at b[i] and gives the index behind it.
func (p *plan) object(q unsafe.Pointer, b []byte, i int) (end int, err error) {
	it := members{b: b, i: i + 1, valid: true}
	for it.next() {
		if f := p.find(it.key); f != nil {
			if err := f.plan.decodeInto(unsafe.Add(q, f.offset), it.val); err != nil {
				return it.i, fmt.Errorf("%s: %w", f.name, err)
			}
		}
	}
	return it.i, it.err
}

func (c compiler) addFields(p *plan, t reflect.Type, base uintptr) {
	for i := range t.NumField() {
		sf := t.Field(i)
		tag, opts, _ := strings.Cut(sf.Tag.Get("json"), ",")
		if sf.Anonymous && tag == "" && sf.Type.Kind() == reflect.Struct {
			c.addFields(p, sf.Type, base+sf.Offset)
			continue
		}
		if sf.Tag.Get("body") == "all" {
			if sf.Type != typeObject {
				panic("wire: " + t.String() + ": only a wire.Object can take the whole body")
			}
			p.all = len(p.fields)
			p.fields = append(p.fields, field{offset: base + sf.Offset, plan: c.plan(sf.Type), doc: sf.Tag.Get("doc")})
			continue
		}
		if !sf.IsExported() || tag == "-" {
			continue
		}
		if tag == "" {
			panic("wire: " + t.String() + "." + sf.Name + " has no json tag")
		}
		f := field{
			name: tag, head: append(AppendString(nil, tag), ':'), offset: base + sf.Offset, plan: c.plan(sf.Type),
			omit:    strings.Contains(opts, "omitempty") || strings.Contains(opts, "omitzero") || sf.Type.Implements(implOpt),
			nilNull: sf.Tag.Get("wire") == "null", doc: sf.Tag.Get("doc"),
		}
		if at := slices.IndexFunc(p.fields, func(o field) bool { return o.name == tag }); at >= 0 {
			p.fields[at] = f // the outer field shadows the embedded one
			continue
		}
		p.fields = append(p.fields, f)
	}
}

// find gives the field of a name as it stands in the JSON, or nil.
func (p *plan) find(written []byte) *field {
	if p.byName != nil {
		if i, ok := p.byName[string(written)]; ok && p.fields[i].head != nil {
			return &p.fields[i]
		}
	} else {
		for i := range p.fields {
			if f := &p.fields[i]; f.name == string(written) && f.head != nil {
				return f
			}
		}
	}
	if bytes.IndexByte(written, '\\') >= 0 {
		return p.findName(unquote(written))
	}
	return nil
}

func (p *plan) findName(name string) *field {
	for i := range p.fields {
		if p.fields[i].name == name && p.fields[i].head != nil {
			return &p.fields[i]
		}
	}
	return nil
}

func (p *plan) appendStruct(dst []byte, q unsafe.Pointer, h *hashing) []byte {
	dst = append(dst, '{')
	top := h.enter()
	first := true
	for i := range p.fields {
		f := &p.fields[i]
		at := unsafe.Add(q, f.offset)
		if f.head == nil || f.omit && f.plan.empty(at) {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(dst, f.head...)
		if f.nilNull && *(*unsafe.Pointer)(at) == nil {
			dst = append(dst, "null"...)
			continue
		}
		h.at(top, f.name)
		dst = f.plan.app(dst, at, h)
	}
	h.leave(top)
	return append(dst, '}')
}
