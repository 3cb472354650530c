package realm

import "testing"

func TestKey(t *testing.T) {
	seen := make(map[string]string)
	for _, realm := range []string{"", "shop", "shop 2"} {
		for _, user := range []string{"alice", "\x1f", "\x1fshop\x1falice", "\x1f\x1falice", "a\x1fb"} {
			key, what := Key(realm, user), realm+" / "+user
			if other := seen[key]; other != "" {
				t.Errorf("%q and %q have one key, %q", other, what, key)
			}
			seen[key] = what
			if got := User(realm, key); got != user {
				t.Errorf("User(%q, %q) = %q, want %q", realm, key, got, user)
			}
			if r, u, ok := Split(key); r != realm || u != user || !ok {
				t.Errorf("Split(%q) = %q, %q, %v, want %q, %q", key, r, u, ok, realm, user)
			}
		}
	}
	if key := Key("", "alice"); key != "alice" { // as in releases before there were realms
		t.Errorf("the default realm's key is %q", key)
	}
	if key := Key("shop", ""); key != "" {
		t.Errorf("nobody's key is %q", key)
	}
	if r, u, ok := Split(""); r != "" || u != "" || ok {
		t.Errorf("Split(nobody) = %q, %q, %v", r, u, ok)
	}
	if r, u, ok := Split("\x1falone"); r != "" || u != "\x1falone" || !ok {
		t.Errorf("Split of no key = %q, %q, %v", r, u, ok)
	}
}
