// Package bounded holds decoders to a bound of the memory that they take, for tests and
// fuzz targets: a few bytes that claim to be many must not cost as much.
package bounded

import (
	"runtime"
	"testing"
)

// Slack is what any call may allocate: buffers, and what a codec learns of a type.
const Slack = 1 << 20

// Decode calls f, which decodes n bytes, and fails if f allocated more than Slack
// bytes and 64 for each of the n. Nothing else may run meanwhile.
func Decode(t testing.TB, n int, f func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > Slack+64*uint64(n) {
		t.Errorf("%d bytes to decode took %d bytes of memory", n, took)
	}
}
