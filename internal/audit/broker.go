package audit

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/leasehold/leasehold/internal/errs"
)

// Enabled is a device as it is enabled at a path.
type Enabled struct {
	Path   string // "file/"
	Format Format
	Device Device
}

// Broker gives each record to every enabled device and fails closed: unless at
// least one has taken the record, the request gets no answer.
type Broker struct {
	log *slog.Logger

	mu  sync.Mutex // serialises changes of set
	set atomic.Pointer[deviceSet]

	written atomic.Uint64
	refused struct{ requests, responses, events atomic.Uint64 }
}

// deviceSet is never changed once it is in use.
type deviceSet struct {
	groups []group
	byPath map[string]*member
	closed bool // there were devices until the broker was closed
}

// group is the devices whose records look the same and are encoded once.
type group struct {
	format  *formatter
	members []*member
}

// member is an enabled device and how it fares.
type member struct {
	Enabled
	sick   atomic.Bool
	missed atomic.Uint64 // records not taken since it fell sick
	failed atomic.Uint64 // records not taken since it was enabled
}

// NewBroker makes a broker without devices. Sick devices are logged to log.
func NewBroker(log *slog.Logger) *Broker {
	b := &Broker{log: log}
	b.set.Store(&deviceSet{})
	return b
}

// Enabled reports whether any device is enabled. Work that stores its record
// for later asks it first. Devices that Close has closed count: what would have
// been recorded by them is refused.
func (b *Broker) Enabled() bool {
	set := b.set.Load()
	return len(set.groups) > 0 || set.closed
}

// Set puts devices in place of those enabled before, at once for all records.
// A Device that is in both stays as it is; those that are left out are closed
// after the writes under way.
func (b *Broker) Set(devices []Enabled) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.setLocked(devices, false)
}

func (b *Broker) setLocked(devices []Enabled, closed bool) error {
	old := b.set.Load()
	next := &deviceSet{byPath: make(map[string]*member, len(devices)), closed: closed}
	at := make(map[Format]int)
	for _, d := range devices {
		m := old.byPath[d.Path]
		if m == nil || m.Enabled != d {
			m = &member{Enabled: d}
		}
		next.byPath[d.Path] = m
		i, ok := at[d.Format]
		if !ok {
			i = len(next.groups)
			at[d.Format] = i
			next.groups = append(next.groups, group{format: newFormatter(d.Format)})
		}
		next.groups[i].members = append(next.groups[i].members, m)
	}
	b.set.Store(next)

	kept := make(map[Device]bool, len(devices))
	for _, d := range devices {
		kept[d.Device] = true
	}
	var failed []error
	for _, m := range old.byPath {
		if !kept[m.Device] {
			failed = append(failed, m.Device.Close())
		}
	}
	return errors.Join(failed...)
}

// Close closes all devices. A request that outlasts it is refused where it would
// have been recorded.
func (b *Broker) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.setLocked(nil, b.Enabled())
}

// Reopen makes every device let go of its file or connection for a new one.
func (b *Broker) Reopen() error {
	var failed []error
	set := b.set.Load()
	for _, path := range slices.Sorted(maps.Keys(set.byPath)) {
		if err := set.byPath[path].Device.Reopen(); err != nil {
			failed = append(failed, errs.Wrap(errs.Internal, err, "reopening audit device %s", path))
		}
	}
	return errors.Join(failed...)
}

// Hash is what input looks like in the records of the device at path.
func (b *Broker) Hash(path, input string) (string, error) {
	m := b.set.Load().byPath[path]
	if m == nil {
		return "", errs.New(errs.Invalid, "unknown audit backend %q", path)
	}
	return m.Format.Hash(input), nil
}

// Request writes a request's record. After an error, of kind Unavailable, the
// request must not be carried out.
func (b *Broker) Request(ctx context.Context, e *Entry) error {
	return b.write(ctx, &b.refused.requests, func(enc *encoder) { enc.record("request", e) })
}

// Response writes the record of an answer. After an error, of kind
// Unavailable, the answer must not be sent.
func (b *Broker) Response(ctx context.Context, e *Entry) error {
	return b.write(ctx, &b.refused.responses, func(enc *encoder) { enc.record("response", e) })
}

// Deliver writes event records, in order. Unlike requests, which nobody wants
// to see recorded while auditing is off, events wait for a device: with none
// enabled Deliver fails.
func (b *Broker) Deliver(ctx context.Context, events []Stored) error {
	if !b.Enabled() {
		return errs.New(errs.Unavailable, "no audit device is enabled")
	}
	return b.write(ctx, &b.refused.events, func(enc *encoder) {
		for i := range events {
			enc.event(&events[i])
		}
	})
}

// write counts the record as written, or in refused.
func (b *Broker) write(ctx context.Context, refused *atomic.Uint64, encode func(*encoder)) error {
	for {
		set := b.set.Load()
		switch {
		case set.closed:
			refused.Add(1)
			return errs.Wrap(errs.Unavailable, ErrClosed, "the server was sealed before the request could be recorded, so it is not answered")
		case len(set.groups) == 0:
			return nil
		}
		taken, err := b.writeTo(ctx, set, encode)
		switch {
		case taken:
			b.written.Add(1)
			return nil
		case b.set.Load() != set:
			// The devices were changed meanwhile and ours may have been
			// closed: what counts is who is enabled now.
			continue
		}
		refused.Add(1)
		return errs.Wrap(errs.Unavailable, err, "no audit device could record this request, so it is not answered; "+
			"the server's log says what is wrong with the device, and requests work again as soon as it does")
	}
}

// writeTo gives the record to all devices of set and reports whether at least
// one took it.
func (b *Broker) writeTo(ctx context.Context, set *deviceSet, encode func(*encoder)) (taken bool, err error) {
	var failed []error
	for i := range set.groups {
		g := &set.groups[i]
		enc := g.format.get()
		encode(enc)
		for _, m := range g.members {
			switch err := m.Device.Write(enc.buf); {
			case err != nil:
				failed = append(failed, err)
				b.fell(ctx, m, err)
			default:
				taken = true
				if m.sick.Load() {
					b.rose(ctx, m)
				}
			}
		}
		g.format.put(enc)
	}
	return taken, errors.Join(failed...)
}

// fell notes that m has not taken a record. Only the first of a row is logged.
func (b *Broker) fell(ctx context.Context, m *member, err error) {
	if errors.Is(err, ErrClosed) {
		return // it was disabled while this record was under way
	}
	m.failed.Add(1)
	m.missed.Add(1)
	if m.sick.CompareAndSwap(false, true) {
		b.log.ErrorContext(ctx, "audit device fails; it is tried again with each record", "device", m.Path, "error", err)
	}
}

func (b *Broker) rose(ctx context.Context, m *member) {
	if m.sick.CompareAndSwap(true, false) {
		b.log.InfoContext(ctx, "audit device works again", "device", m.Path, "records_missed", m.missed.Swap(0))
	}
}

// Stats are figures since the broker was made.
type Stats struct {
	Written uint64 // records that at least one device took
	Refused uint64 // records that none took
	// Of the refused: requests that were not carried out, and answers that
	// were not given.
	RefusedRequests, RefusedResponses uint64
	Devices                           []DeviceStats
}

// DeviceStats tell how one device fares.
type DeviceStats struct {
	Path   string
	Sick   bool   // it has not taken the newest record
	Failed uint64 // records not taken since it was enabled
}

// Stats gives the figures for metrics, devices in order of their paths.
func (b *Broker) Stats() Stats {
	set := b.set.Load()
	s := Stats{Written: b.written.Load(), RefusedRequests: b.refused.requests.Load(), RefusedResponses: b.refused.responses.Load()}
	s.Refused = s.RefusedRequests + s.RefusedResponses + b.refused.events.Load()
	for _, path := range slices.Sorted(maps.Keys(set.byPath)) {
		m := set.byPath[path]
		s.Devices = append(s.Devices, DeviceStats{Path: path, Sick: m.sick.Load(), Failed: m.failed.Load()})
	}
	return s
}
