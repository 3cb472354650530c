package bounded_test

import (
	"testing"

	"github.com/session2/session2/internal/bounded"
)

// recorder is a test that may fail.
type recorder struct {
	testing.TB
	failed bool
}

func (r *recorder) Helper()               {}
func (r *recorder) Errorf(string, ...any) { r.failed = true }

var sink []byte

func TestDecode(t *testing.T) {
	for _, test := range []struct {
		n, takes int
		fails    bool
	}{
		{0, 0, false},
		{10, bounded.Slack / 2, false},
		{10, bounded.Slack + 64<<10, true},
		{64 << 10, bounded.Slack + 64<<10, false},
	} {
		r := &recorder{TB: t}
		bounded.Decode(r, test.n, func() { sink = make([]byte, test.takes) })
		if r.failed != test.fails {
			t.Errorf("%d bytes that take %d: failed %v, want %v", test.n, test.takes, r.failed, test.fails)
		}
	}
}
