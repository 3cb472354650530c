package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestQuick finds that only the first attempt is made on the caller's goroutine, that it
// counts as one, and that a call whose time is over there says so.
func TestQuick(t *testing.T) {
	broken, refused := errors.New("broken"), errors.New("refused")
	for _, test := range []struct {
		what    string
		prompt  bool
		heard   time.Duration // how long ago the server has answered
		answers []error
		want    error
		here    []bool
	}{
		{"nothing is known of the driver", false, 0, []error{nil}, nil, []bool{false}},
		{"done at once", true, 0, []error{nil}, nil, []bool{true}},
		{"nothing was heard for a while", true, lately, []error{nil}, nil, []bool{false}},
		{"refused", true, 0, []error{refused}, refused, []bool{true}},
		{"tried again", true, 0, []error{broken, broken, nil}, nil, []bool{true, false, false}},
		{"handed on", true, 0, []error{errElsewhere, nil}, nil, []bool{true, false}},
		{"out of time", true, 0, []error{context.DeadlineExceeded}, context.DeadlineExceeded, []bool{true}},
	} {
		synctest.Test(t, func(t *testing.T) {
			db := sql.OpenDB(&counting{})
			defer db.Close()
			s, err := newStore(db, Options{Timeout: time.Second}, func([]string) dialect {
				return dialect{meaning: func(err error) Fault {
					if errors.Is(err, broken) {
						return Broken
					}
					return Refused
				}}
			})
			if err != nil {
				t.Fatal(err)
			}
			s.prompt.Store(test.prompt)
			s.heard.Store((time.Since(began) - test.heard).Nanoseconds())
			var here []bool
			var left []int // how many attempts there were when the caller's goroutine was left
			n, err := quick(t.Context(), s, func(ctx context.Context, h bool) (int, error) {
				here = append(here, h)
				answer := test.answers[len(here)-1]
				if errors.Is(answer, context.DeadlineExceeded) {
					<-ctx.Done()
				}
				return len(here), answer
			}, func() { left = append(left, len(here)) })
			if !errors.Is(err, test.want) || !slices.Equal(here, test.here) {
				t.Errorf("%s: got %v, attempts here %v, want %v, %v", test.what, err, here, test.want, test.here)
			}
			if own := slices.Index(here, false); own >= 0 && !slices.Equal(left, []int{own}) {
				t.Errorf("%s: the caller's goroutine is left after %v attempts, and attempt %d is elsewhere", test.what, left, own)
			}
			if err == nil && n != len(test.answers) {
				t.Errorf("%s: got what attempt %d made, want that of %d", test.what, n, len(test.answers))
			}
			if test.want == context.DeadlineExceeded && !strings.Contains(err.Error(), errSilent.Error()) {
				t.Errorf("%s: got %v, want it to say who did not answer", test.what, err)
			}
			own := err != nil && strings.Count(err.Error(), "the store's timeout of 1s") == 1
			if own != (test.want == context.DeadlineExceeded) {
				t.Errorf("%s: got %v, want it to say once whose time is over, and only then", test.what, err)
			}
		})
	}
}
