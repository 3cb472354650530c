package command

import (
	"bytes"
	"encoding/binary"
	"io"
	"iter"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/tally"
)

// inSteps yields n records a second, of all IDs in order or in reverse.
func inSteps(n int, order int) iter.Seq2[session2.Record, error] {
	return func(yield func(session2.Record, error) bool) {
		for i := range n {
			time.Sleep(time.Second)
			at := i
			if order < 0 {
				at = n - 1 - i
			}
			var rec session2.Record
			binary.BigEndian.PutUint64(rec.ID[:], uint64(at)*(1<<63/uint64(n))*2)
			if !yield(rec, nil) {
				return
			}
		}
	}
}

func TestProgress(t *testing.T) {
	for _, test := range []struct {
		name  string
		live  bool
		order int
		want  string
	}{
		{"in order", true, 1, `check: 301 records, 1/s, 75 %, 1m4\ds left`},
		{"not in order", true, -1, `check: 301 records, 1/s\x1b`},
		{"in a pipe", false, 1, `^$`},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var b bytes.Buffer
				p := newProgress(&b, "check")
				p.live = test.live
				for range p.over(inSteps(400, test.order)) {
				}
				p.stop()
				if got := b.String(); !regexp.MustCompile(test.want).MatchString(got) {
					t.Errorf("got %q, want %q", got[max(0, len(got)-5000):], test.want)
				}
			})
		})
	}
}

// TestProgressOfDeletions finds that each store says how much it has deleted
// while it deletes.
func TestProgressOfDeletions(t *testing.T) {
	const old, owned = 250, 120 // more than a batch
	for _, kind := range stores {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			url := kind.url(t)
			session(t, "setup", url).want(0)
			with(t, url, func(store session2.Store) {
				for i := range old + owned {
					rec := session2.Record{ID: session2.ID{byte(i), byte(i >> 8), 1}, Version: 1, User: "bob",
						Created: time.Now(), Accessed: time.Now(), Expires: time.Now().Add(time.Hour)}
					if i < old {
						rec.User, rec.Expires = "", time.Now()
					}
					must(t, store.Save(t.Context(), rec, 0))
				}
				p := newProgress(io.Discard, "delete-old")
				n, err := store.(session2.DeleteOldStore).DeleteOld(p.deleting(t.Context()), time.Hour)
				if err != nil || n != old || p.done != old {
					t.Errorf("DeleteOld: got %d, %v with %d counted, want %d", n, err, p.done, old)
				}
				n, err = store.(session2.UserStore).DeleteUser(p.deleting(t.Context()), "bob")
				if err != nil || n != owned || p.done != owned {
					t.Errorf("DeleteUser: got %d, %v with %d counted, want %d", n, err, p.done, owned)
				}
			})
		})
	}
}

func TestProgressOfADeletion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		p := newProgress(&b, "delete-old")
		p.live = true
		ctx := p.deleting(t.Context())
		for range 10 {
			time.Sleep(time.Second)
			tally.Add(ctx, 100)
		}
		p.stop()
		for _, want := range []string{
			"\rdelete-old: at work\x1b[K", "\rdelete-old: 1000 records, 100/s\x1b[K", "\r\x1b[K",
		} {
			if !strings.Contains(b.String(), want) {
				t.Errorf("got %q, want it to have %q", b.String(), want)
			}
		}
	})
}
