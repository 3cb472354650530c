package session2_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// parcel is of a type that gob knows by name only where it is registered.
type parcel struct{ Weight int }

func TestInspect(t *testing.T) {
	for name, codec := range map[string]session2.Codec{"gob": nil, "json": session2.JSON{}} {
		t.Run(name, func(t *testing.T) {
			store := session2.NewMemoryStore()
			m, err := session2.NewManager(store, session2.Config{Codec: codec})
			testsite.Must(t, err)
			s, err := m.Open(t.Context(), "")
			testsite.Must(t, err)
			s.Set("color", "the color")
			s.Set("age", 3*time.Second)
			session2.NewKey[parcel]("parcel").Set(s, parcel{7})
			s.Flash("the flash")
			s.FormToken()
			testsite.Must(t, s.Commit(t.Context()))
			rec, err := store.Load(t.Context(), s.ID())
			testsite.Must(t, err)

			c, err := session2.Inspect(rec)
			testsite.Must(t, err)
			if len(c.Flashes) != 1 || len(c.Values) != 3 || c.FormTokens != 1 || c.Versions[len(c.Versions)-1] != rec.Version {
				t.Errorf("got %+v, want one flash, three values, one form token and the version %v", c, rec.Version)
			}
			if shown := fmt.Sprintf("%v %+v %#v", c, c, c); strings.Contains(shown, "the color") || strings.Contains(shown, "the flash") {
				t.Errorf("printing the contents shows values: %s", shown)
			}
			wantItem(t, c.Values[0], "age", 3*time.Second)
			wantItem(t, c.Values[1], "color", "the color")
			wantItem(t, c.Flashes[0], "", "the flash")
			v, err := c.Values[2].Value()
			if name == "json" && fmt.Sprint(v) != "map[Weight:7]" || name == "gob" && err == nil {
				t.Errorf("parcel: got %v, %v", v, err)
			}
		})
	}
}

func wantItem(t *testing.T, item session2.Item, key string, want any) {
	t.Helper()
	if v, err := item.Value(); item.Key != key || v != want || err != nil {
		t.Errorf("got %q = %v, %v, want %q = %v", item.Key, v, err, key, want)
	}
}

func TestInspectCorrupt(t *testing.T) {
	rec := houseRecord(1, "alice")
	rec.Data = []byte("scrambled")
	_, err := session2.Inspect(rec)
	if !errors.Is(err, session2.ErrCorrupt) || !strings.Contains(err.Error(), rec.ID.String()) || strings.Contains(err.Error(), "scrambled") {
		t.Errorf("got %v, want %v with the ID and no data", err, session2.ErrCorrupt)
	}
}
