package transit

import (
	"context"
	"encoding/base64"
	"slices"
	"strconv"
	"sync"

	"github.com/leasehold/leasehold/internal/engines/transit/b64"
	"github.com/leasehold/leasehold/internal/engines/transit/primitive"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/wire"
)

// This file does what was asked for to one item or to each of a batch, in
// memory that requests lend one another.

// room is where a request works. What is worked on lies in it until the next
// item; the texts of the results are lent to the answer. Nothing that a request
// leaves in it outlives its return.
type room struct {
	in, out []byte // of an item: what it holds, and what is made of it
	texts   []byte // of an item's result
	list    []byte // the results of a batch

	nonces       primitive.Nonces // of a batch
	many         bool             // it is one
	seals, opens settled
}

// settled is the key by which the item before was encrypted or decrypted, if
// that depended on nothing but the version asked for.
type settled struct {
	by             primitive.Cipher
	asked, version int
}

// plain is whether the item itself has no say in how its key is used.
func (it *itemIn) plain() bool {
	return len(it.Context) == 0 && len(it.Nonce) == 0 && len(it.AssociatedData) == 0 && it.Padding == ""
}

var rooms = sync.Pool{New: func() any { return new(room) }}

// keepRoom bounds what is kept for the next request.
const keepRoom = 64 << 10

func newRoom() *room { return rooms.Get().(*room) }

// Release wipes the room and gives it to the next request.
func (r *room) Release() {
	most := 0
	for _, b := range []*[]byte{&r.in, &r.out, &r.texts, &r.list} {
		clear((*b)[:cap(*b)])
		*b, most = (*b)[:0], max(most, cap(*b))
	}
	r.nonces, r.many = primitive.Nonces{}, false
	r.seals, r.opens = settled{}, settled{}
	if most <= keepRoom {
		rooms.Put(r)
	}
}

// text makes the text of some bytes made by a version.
func (r *room) text(version int, b []byte) wire.Text {
	at := r.head(version, base64.StdEncoding.EncodedLen(len(b)))
	r.texts = b64.Append(r.texts, b)
	return r.texts[at:len(r.texts):len(r.texts)]
}

// textIn is text in another base64 than the standard one.
func (r *room) textIn(enc *base64.Encoding, version int, b []byte) wire.Text {
	if enc == base64.StdEncoding {
		return r.text(version, b)
	}
	at := r.head(version, enc.EncodedLen(len(b)))
	r.texts = enc.AppendEncode(r.texts, b)
	return r.texts[at:len(r.texts):len(r.texts)]
}

// head begins a text, with room for more behind it.
func (r *room) head(version, more int) (at int) {
	at = len(r.texts)
	r.texts = slices.Grow(r.texts, len(prefix)+12+more)
	r.texts = appendHead(r.texts, version)
	return at
}

// appendHead appends what stands before what a version has made.
func appendHead(dst []byte, version int) []byte {
	return append(strconv.AppendInt(append(dst, prefix...), int64(version), 10), ':')
}

// plainText makes base64 of some bytes.
func (r *room) plainText(b []byte) wire.Text {
	at := len(r.texts)
	r.texts = b64.Append(r.texts, b)
	return r.texts[at:len(r.texts):len(r.texts)]
}

// each does something to one item or to each of a batch. shows is whether a
// plaintext, empty, stands beside an item's error.
func (e *Engine) each(ctx context.Context, req *route.Request, in *cryptIn, shows bool,
	do func(*Engine, context.Context, *readyKey, *itemIn, *room) (itemOut, error)) (out cryptOut, err error) {
	k, err := e.usable(ctx, in.Name, "encryption")
	if err != nil {
		return out, err
	}
	r := newRoom()
	defer func() {
		if err != nil {
			r.Release()
		} else {
			req.Lend(r)
		}
	}()
	if !in.Batch.Set() {
		out.itemOut, err = do(e, ctx, k, &in.itemIn, r)
		return out, err
	}
	list, n, failed := wire.NewItems[itemOut](r.list), 0, 0
	r.many = true
	var res itemOut
	var contexts contexts
	for it, err := range in.Batch.All() {
		if err != nil {
			return out, err
		}
		if n++; !contexts.fits(it) {
			return out, errContexts
		}
		if err := inTime(ctx, n); err != nil {
			return out, err
		}
		r.texts = r.texts[:0]
		if res, err = do(e, ctx, k, it, r); err != nil {
			if !callers(err) {
				return out, err
			}
			failed++
			res = itemOut{Error: errs.Message(err)}
			if shows {
				res.Plaintext = wire.Some(wire.Text{})
			}
		}
		res.Reference = wire.Some(it.Reference)
		list.Add(&res)
	}
	r.list = list.Close()
	if n == 0 {
		return out, errNoBatch
	}
	if failed > 0 {
		in.partly(req, failed < n)
	}
	out.Batch = list
	return out, nil
}

// contexts is whether the items of a batch name contexts. Each does or none:
// one that forgot its own is not to be encrypted beside the others unnoticed.
type contexts struct{ known, given bool }

func (c *contexts) fits(it *itemIn) bool {
	given := len(it.Context) > 0
	if !c.known {
		c.known, c.given = true, given
	}
	return c.given == given
}

var (
	errContexts = errs.New(errs.Invalid, "context should be set either in all the request blocks or in none")
	errNoBatch  = errs.New(errs.Invalid, "missing batch input to process")
	errTooSlow  = errs.New(errs.Invalid, "the batch takes longer than a request may; send its items in several requests")
)

// inTime looks now and then whether the request is still waited for: a hundred
// thousand signatures take hours by some keys.
func inTime(ctx context.Context, n int) error {
	if n%16 == 0 && ctx.Err() != nil {
		return errTooSlow
	}
	return nil
}

// partly says by the answer's status that items of a batch have failed. some
// is whether others have not.
func (in *cryptIn) partly(req *route.Request, some bool) {
	req.SetStatus(400)
	switch code := in.PartialCode; {
	case code == 0 || !some:
	case code < 200 || code > 599:
		req.Warn("partial_failure_response_code %d is not the status of an answer; 400 stands in its place", code)
	default:
		req.SetStatus(code)
	}
}

// each answers one item, or each of a batch. failed is what stands beside an
// item's error.
func (in *signIn) each(ctx context.Context, req *route.Request, failed signOut, do func(*signItem, *room) (signOut, error)) (reply signReply, err error) {
	r := newRoom()
	defer func() {
		if err != nil {
			r.Release()
		} else {
			req.Lend(r)
		}
	}()
	if !in.Batch.Set() {
		reply.signOut, err = do(&in.signItem, r)
		return reply, err
	}
	list, n := wire.NewItems[signOut](r.list), 0
	var out signOut
	for it, err := range in.Batch.All() {
		if err != nil {
			return reply, err
		}
		n++
		if err := inTime(ctx, n); err != nil {
			return reply, err
		}
		r.texts = r.texts[:0]
		if out, err = do(it, r); err != nil {
			if !callers(err) {
				return reply, err
			}
			out = failed
			out.Error = errs.Message(err)
		}
		out.Reference = wire.Some(it.Reference)
		out.PublicKey, out.ItemsKey = "", out.PublicKey
		list.Add(&out)
	}
	r.list = list.Close()
	if n == 0 {
		return reply, errNoBatch
	}
	reply.Batch = list
	return reply, nil
}
