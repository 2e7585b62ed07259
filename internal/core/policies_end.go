package core

import (
	"context"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/storage"
)

// A policy that has expired is not there from that moment on, whoever looks.
// Its row is deleted soon after, by an index in the order of time:
//
//	policyend/<time>/<ns>/<name>     nothing
const policyEndPrefix = "policyend/"

func policyEnd(at time.Time, nsAndName string) string {
	return policyEndPrefix + at.UTC().Format("20060102T150405Z") + "/" + nsAndName
}

// sweepPolicies deletes the rows of policies that have expired.
func (u *unsealed) sweepPolicies(ctx context.Context) {
	for ctx.Err() == nil {
		const page = 40
		now := u.core.cfg.Now()
		var ends []string
		err := u.store.View(ctx, func(v storage.View) error {
			return storage.ScanEach(v, policyEndPrefix, policyEnd(now, ""), page, func(key string, _ []byte, _ error) bool {
				ends = append(ends, key)
				return true
			})
		})
		if err == nil && len(ends) > 0 {
			_, err = u.store.Update(ctx, func(tx storage.Tx) error { return dropExpired(tx, ends, now) })
		}
		if err != nil {
			if ctx.Err() == nil {
				u.core.log.Error("deleting policies that have expired; it is tried again", "error", err)
			}
			return
		}
		if len(ends) < page {
			return
		}
	}
}

// dropExpired deletes what the entries of the index name, unless it was given
// more time meanwhile. A row that cannot be read stays: nobody knows its time.
func dropExpired(tx storage.Tx, ends []string, now time.Time) error {
	for _, end := range ends {
		_, name, _ := strings.Cut(end[len(policyEndPrefix):], "/")
		row, err := policyAt(tx, policyPrefix+name, now)
		if err != nil && !isBadRow(err) {
			return err
		}
		if row == nil && err == nil { // also when it is gone already
			if err := tx.Delete(policyPrefix + name); err != nil {
				return err
			}
		}
		if err := tx.Delete(end); err != nil {
			return err
		}
	}
	return nil
}
