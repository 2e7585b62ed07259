package wire

import "reflect"

// Shape is a type as it stands on the wire, for OpenAPI.
type Shape struct {
	Type   string  // OpenAPI's type; "" is any
	Format Format  // of a string
	Secret bool    // hashed in the audit log
	Null   bool    // may be null in an answer
	Items  *Shape  // of an array
	Values *Shape  // of an object without fixed members; nil if there are fields
	Fields []Field // of an object
}

// Format tells strings apart.
type Format string

// The formats.
const (
	AnyText  Format = ""
	Duration Format = "duration"  // accepted as text or seconds, answered as seconds
	DateTime Format = "date-time" // RFC 3339
	Base64   Format = "byte"
)

// Field is a member of an object.
type Field struct {
	Name, Doc string
	Shape     *Shape
}

// ShapeOf describes a type, or what it points to.
func ShapeOf(t reflect.Type) *Shape {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return planOf(t).shape(nil)
}

// shape describes the plan's type. within are the structs that it lies in: one
// that contains itself is described once.
func (p *plan) shape(within []*plan) *Shape {
	s := &Shape{Type: p.schema, Secret: p.secret}
	switch {
	case p.typ == typeTTL:
		s.Format = Duration
	case p.typ == typeTime, p.typ == typeWhen:
		s.Format, s.Null = DateTime, p.typ == typeTime
	case p.typ == typeBytes:
		s.Format = Base64
	case p.typ == typeCSV, p.typ == typeStrings:
		s.Items = &Shape{Type: "string"}
	case p.typ == typeKV:
		s.Values = &Shape{Type: "string"}
	case p.typ == typeObject:
		s.Values = &Shape{}
	case p.typ.Implements(implOpt):
		return p.elem.shape(within)
	case p.typ.Kind() == reflect.Interface, p.typ == typeValue:
		s.Type = ""
	case p.elem != nil && p.typ.Kind() == reflect.Pointer:
		s = p.elem.shape(within)
		s.Null = true
	case p.elem != nil && (p.typ.Kind() == reflect.Slice || p.typ.Implements(implItems)):
		s.Items = p.elem.shape(within)
	case p.elem != nil && p.typ.Kind() == reflect.Map:
		s.Values = p.elem.shape(within)
	case p.typ.Kind() == reflect.Struct && s.Type == "object":
		for _, outer := range within {
			if outer == p {
				return s
			}
		}
		within = append(within, p)
		for _, f := range p.fields {
			if f.head == nil {
				s.Values = &Shape{}
				continue
			}
			in := f.plan.shape(within)
			in.Null = in.Null || f.nilNull
			s.Fields = append(s.Fields, Field{Name: f.name, Doc: f.doc, Shape: in})
		}
	}
	return s
}
