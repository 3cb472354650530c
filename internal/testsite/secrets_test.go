package testsite

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
)

// A secret is found in whichever way it was let out, and nothing is where there is none.
func TestSecretsAreFound(t *testing.T) {
	secret := make([]byte, 32)
	for range 100 {
		for i := range secret {
			secret[i] = byte(rand.Uint32())
		}
		text := base64.RawURLEncoding.EncodeToString(secret)
		token := strings.Repeat("a", 32) + "." + text
		var k Secrets
		k.Token(token)
		k.Token("no token")
		if k.Len() != 2 {
			t.Fatalf("%d secrets, want the verifier and its text", k.Len())
		}
		book := &Log{}
		js, _ := json.Marshal(map[string]any{"bytes": secret, "array": [8]byte(secret)})
		var planted []string
		for _, verb := range []string{"%s", "%x", "%X", "%v", "%#v", "%08b", "%q", "%d"} {
			planted = append(planted, fmt.Sprintf("a line with "+verb+" in it", secret))
		}
		for _, prefix := range []string{"", "x", "xy"} {
			planted = append(planted, base64.StdEncoding.EncodeToString([]byte(prefix+token)),
				base64.URLEncoding.EncodeToString(append([]byte(prefix), secret...)), prefix+token,
				hex.EncodeToString([]byte(token)))
		}
		book.Logger().Debug("planted", "secret", hex.EncodeToString(secret))
		slog.New(slog.NewJSONHandler(book, nil)).Info("planted", "token", token)
		for line := range strings.Lines(book.String()) {
			planted = append(planted, line)
		}
		for _, line := range append(planted, string(js), string(js[:1+strings.Index(string(js), "]")])) {
			if len(k.Find([]byte(line))) == 0 {
				t.Errorf("not found: %q", line)
			}
		}
		if found := k.Find([]byte(strings.Repeat("nothing is here, not even "+token[:40], 10))); found != nil {
			t.Errorf("found where there is none: %v", found)
		}
	}
}
