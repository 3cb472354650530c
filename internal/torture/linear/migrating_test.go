package linear

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/session2/session2"
)

// Sessions move while processes use them, some of which hold: no record is lost, seen
// twice, or back when it was deleted.
func TestMigrating(t *testing.T) {
	old, next := session2.NewMemoryStore(), session2.NewMemoryStore()
	var stores []store
	for i := range 4 {
		m := session2.NewMigrating(old, next)
		m.Hold(i%2 == 0)
		stores = append(stores, untouched{m})
	}
	tries(t, 60, func(seed uint64) counts {
		p := newPlan(seed)
		if seed%2 == 0 {
			p.Cancel = 15
		}
		done := make(chan struct{})
		var copying sync.WaitGroup
		copying.Go(func() { copyUntil(t, session2.NewMigrating(old, next), done) })
		defer copying.Wait()
		defer close(done)
		return try(t, stores, p, rules{skips: true}) // of what is between two steps of its move
	})
}

func copyUntil(t *testing.T, m *session2.Migrating, done <-chan struct{}) {
	for {
		if _, err := m.Copy(context.Background(), nil); err != nil {
			t.Errorf("Copy: %v", err)
		}
		select {
		case <-done:
			return
		default:
		}
	}
}

// untouched makes no Touch: one beside a move may be lost.
type untouched struct{ *session2.Migrating }

func (untouched) Touch(context.Context, session2.ID, time.Time, time.Time) error {
	return errors.ErrUnsupported
}
