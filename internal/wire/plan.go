package wire

import (
	"encoding"
	"net/netip"
	"reflect"
	"sync"
	"time"
	"unsafe"

	"github.com/leasehold/leasehold/internal/secret"
)

// plan is a type as the decoder and the encoder need it. It is made once per
// type, by reflection; afterwards values are reached through pointers alone.
// The pointers stay typed by construction: every func of a plan is only ever
// given a pointer to a value of the plan's own type.
type plan struct {
	typ    reflect.Type
	schema string // OpenAPI's type
	elem   *plan  // of lists, maps, pointers and Opt

	text   func(p unsafe.Pointer, s string) error // a JSON string, a path's or a query's parameter; nil: not possible
	raw    func(p unsafe.Pointer, b []byte)       // a JSON string without escapes, from between the quotes; nil: text takes it
	json   func(p unsafe.Pointer, v Value) error  // any checked value except null, and a string if text is set
	null   func(p unsafe.Pointer)                 // nil: null leaves the value alone
	app    func(dst []byte, p unsafe.Pointer, h *hashing) []byte
	empty  func(p unsafe.Pointer) bool // encoding/json's omitempty
	secret bool

	fields []field        // of a struct, embedded ones laid flat
	byName map[string]int // index in fields; nil when there are few
	all    int            // index of the field that takes the whole body, or -1
}

type field struct {
	name    string
	head    []byte // `"name":`; nil for the one that takes the whole body
	offset  uintptr
	plan    *plan
	omit    bool
	nilNull bool // a nil list or map is null
	doc     string
}

var plans sync.Map // reflect.Type → *plan, complete ones only

// planOf is the plan of a type, made at first sight. It panics on a type that
// cannot stand on the wire, which is a mistake in our code.
func planOf(t reflect.Type) *plan {
	if p, ok := plans.Load(t); ok {
		return p.(*plan)
	}
	c := compiler{}
	p := c.plan(t)
	for t, p := range c {
		plans.LoadOrStore(t, p)
	}
	return p
}

// compiler holds the plans of one compilation, so that a type may contain
// itself.
type compiler map[reflect.Type]*plan

var (
	typeSecret  = reflect.TypeFor[secret.String]()
	typeTTL     = reflect.TypeFor[TTL]()
	typeCSV     = reflect.TypeFor[CSV]()
	typeStrings = reflect.TypeFor[Strings]()
	typeKV      = reflect.TypeFor[KV]()
	typeValue   = reflect.TypeFor[Value]()
	typeObject  = reflect.TypeFor[Object]()
	typeWhen    = reflect.TypeFor[Time]()
	typeTime    = reflect.TypeFor[time.Time]()
	typeRaw     = reflect.TypeFor[Text]()
	typeBytes   = reflect.TypeFor[[]byte]()
	typeDur     = reflect.TypeFor[time.Duration]()
	typeNet     = reflect.TypeFor[netip.Prefix]()

	implItems     = reflect.TypeFor[interface{ entry() reflect.Type }]()
	implOpt       = reflect.TypeFor[interface{ isOpt() }]()
	implData      = reflect.TypeFor[Data]()
	implMarshal   = reflect.TypeFor[encoding.TextMarshaler]()
	implUnmarshal = reflect.TypeFor[encoding.TextUnmarshaler]()
)

func (c compiler) plan(t reflect.Type) *plan {
	if p, ok := plans.Load(t); ok {
		return p.(*plan)
	}
	if p, ok := c[t]; ok {
		return p
	}
	p := &plan{typ: t, all: -1, schema: "string"}
	c[t] = p
	switch {
	case t == typeSecret:
		planSecret(p)
	case t == typeTTL:
		planTTL(p)
	case t == typeCSV:
		planStrings(p, splitCSV, true)
	case t == typeStrings:
		planStrings(p, func(s string) []string { return []string{s} }, false)
	case t == typeKV:
		planKV(p)
	case t == typeValue:
		planValue(p)
	case t == typeObject:
		planObject(p)
	case t == typeWhen:
		planWhen(p)
	case t == typeTime:
		planTime(p)
	case t == typeRaw:
		planRaw(p)
	case t == typeBytes:
		planBytes(p)
	case t == typeNet:
		planNet(p)
	case t.Implements(implOpt):
		c.planOpt(p)
	case t.Implements(implItems):
		c.planItems(p)
	case t.Kind() == reflect.Interface && t.Implements(implData):
		planData(p)
	case t.Implements(implMarshal) && reflect.PointerTo(t).Implements(implUnmarshal) && t.Kind() != reflect.Pointer:
		planText(p)
	default:
		c.planKind(p)
	}
	return p
}

func (c compiler) planKind(p *plan) {
	t := p.typ
	switch t.Kind() {
	case reflect.String:
		planString(p)
	case reflect.Bool:
		planBool(p)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		if t == typeDur {
			panic("wire: a field of type time.Duration: use wire.TTL")
		}
		planInt(p)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		planUint(p)
	case reflect.Float64:
		planFloat(p)
	case reflect.Pointer:
		c.planPointer(p)
	case reflect.Slice:
		c.planSlice(p)
	case reflect.Map:
		c.planMap(p)
	case reflect.Struct:
		c.planStruct(p)
	default:
		panic("wire: no plan for the type " + t.String())
	}
}
