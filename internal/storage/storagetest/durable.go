package storagetest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"

	"github.com/leasehold/leasehold/internal/storage"
)

// Disk is what a durable store writes to, with a power switch.
type Disk interface {
	// Open opens the store on what the disk holds now.
	Open(t testing.TB) storage.Backend
	// Cut takes the power away at this moment, while the store may be at
	// work: what was synced is kept and of the rest whatever rnd decides.
	// What the store that was open writes later is lost.
	Cut(rnd *rand.Rand)
}

// RunDurable tests that a store keeps what it acknowledged. newDisk makes an
// empty disk.
func RunDurable(t *testing.T, newDisk func(t testing.TB) Disk) {
	t.Run("Reopen", func(t *testing.T) { testReopen(t, newDisk(t)) })
	t.Run("Crash", func(t *testing.T) { testCrash(t, newDisk(t)) })
}

func testReopen(t *testing.T, disk Disk) {
	var last storage.Revision
	for round := range 5 {
		b := disk.Open(t)
		if got := len(All(t, b, "", "")); got != round {
			t.Errorf("after %d rounds the store has %d rows", round, got)
		}
		view(t, b, func(v storage.View) {
			if v.Revision() < last {
				t.Errorf("reopened at revision %d, closed at %d", v.Revision(), last)
			}
		})
		rev := Put(t, b, fmt.Sprint(round), "x")
		if rev <= last {
			t.Errorf("revision %d after a reopening, %d before", rev, last)
		}
		last = rev
		if err := b.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
}

// testCrash lets writers write until the power goes, again and again. Each
// transaction of writer w writes its number n to two rows and, as a running
// total, to a third.
func testCrash(t *testing.T, disk Disk) {
	const rounds, writers = 12, 4
	rnd := rand.New(rand.NewPCG(7, 7))
	next := make([]int, writers) // of each writer, the number of its next transaction
	for round := range rounds {
		b := disk.Open(t)
		next = checkCrash(t, b, next)

		// acked[w] is what w had been promised; a number taken before the
		// power went is one that must be there afterwards.
		var mu sync.Mutex
		acked := append([]int(nil), next...)
		total, enough := 0, make(chan struct{})
		stopAt := 1 + rnd.IntN(150)
		ctx, stop := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for n := next[w]; ctx.Err() == nil; n++ {
					if err := crashWrite(ctx, b, w, n); err != nil {
						return
					}
					mu.Lock()
					acked[w] = n + 1
					if total++; total == stopAt {
						close(enough)
					}
					mu.Unlock()
				}
			})
		}
		<-enough
		mu.Lock()
		promised := append([]int(nil), acked...)
		mu.Unlock()
		disk.Cut(rnd)
		stop()
		wg.Wait()
		if err := b.Close(); err != nil {
			t.Errorf("round %d: Close: %v", round, err)
		}
		next = promised
	}
	b := disk.Open(t)
	checkCrash(t, b, next)
	if err := b.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func crashWrite(ctx context.Context, b storage.Backend, w, n int) error {
	_, err := b.Update(ctx, func(tx storage.Tx) error {
		value := []byte(strconv.Itoa(n))
		for _, key := range []string{fmt.Sprintf("a/%d/%06d", w, n), fmt.Sprintf("b/%d/%06d", w, n), fmt.Sprintf("n/%d", w)} {
			if err := tx.Put(key, value); err != nil {
				return err
			}
		}
		if n > 0 {
			return tx.Delete(fmt.Sprintf("b/%d/%06d", w, n-1))
		}
		return nil
	})
	return err
}

// checkCrash checks that each writer's transactions are there up to some
// number that is not below what was promised, and none of them in part. It
// returns the numbers after the last ones.
func checkCrash(t *testing.T, b storage.Backend, promised []int) []int {
	t.Helper()
	found := make([]int, len(promised))
	for w := range promised {
		as := All(t, b, fmt.Sprintf("a/%d/", w), storage.PrefixEnd(fmt.Sprintf("a/%d/", w)))
		bs := All(t, b, fmt.Sprintf("b/%d/", w), storage.PrefixEnd(fmt.Sprintf("b/%d/", w)))
		last, ok := Get(t, b, fmt.Sprintf("n/%d", w))
		n := 0
		if ok {
			n, _ = strconv.Atoi(last)
			n++
		}
		if n < promised[w] {
			t.Errorf("writer %d: %d transactions are left of %d acknowledged", w, n, promised[w])
		}
		for i := range n {
			if as[fmt.Sprintf("a/%d/%06d", w, i)] != strconv.Itoa(i) {
				t.Errorf("writer %d: transaction %d of %d is missing or in part", w, i, n)
			}
		}
		if _, ok := bs[fmt.Sprintf("b/%d/%06d", w, n-1)]; len(as) != n || len(bs) != min(n, 1) || ok != (n > 0) {
			t.Errorf("writer %d: after %d transactions: %d rows a, %d rows b (the last of them: %v)", w, n, len(as), len(bs), ok)
		}
		found[w] = n
	}
	return found
}
