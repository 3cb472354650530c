package main

import (
	"bytes"
	"encoding/binary"
	"iter"
	"regexp"
	"testing"
	"testing/synctest"
	"time"

	"github.com/session2/session2"
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
