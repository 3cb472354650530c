package sqlstore

import (
	"encoding/hex"
	"math/rand/v2"
	"testing"
)

func TestMySQLBytes(t *testing.T) {
	all := make([]byte, 1000)
	for i := range all {
		all[i] = byte(rand.Uint32())
	}
	for _, n := range []int{0, 1, 16, 127, 128, 129, 256, 1000} {
		if got, want := mysqlBytes(all[:n]), hex.EncodeToString(all[:n]); got != want {
			t.Errorf("%d bytes: got %v, want %v", n, got, want)
		}
	}
}
