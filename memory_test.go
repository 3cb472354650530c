package session2_test

import (
	"testing"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// scribbler is a codec that spoils what it has decoded.
type scribbler struct{ session2.JSON }

func (c scribbler) Unmarshal(data []byte, v any) error {
	err := c.JSON.Unmarshal(data, v)
	clear(data)
	return err
}

// The manager reads records where a MemoryStore keeps them. Nothing of the application
// is given that memory.
func TestMemoryStoreIsNotLentFurther(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{Codec: scribbler{}})
	visitor := &testsite.Browser{}
	list := session2.NewKey[[]string]("list")
	st.Do(visitor, func(s *session2.Session) {
		list.Set(s, []string{"a", "b"})
		s.Set("any", map[string]any{"a": "b"})
		s.Set("bytes", []byte("kept"))
	})
	for range 2 {
		st.Do(visitor, func(s *session2.Session) {
			if got, _ := list.Get(s); len(got) != 2 || got[0] != "a" {
				t.Errorf("list is %q", got)
			}
			if got, _ := s.Get("any").(map[string]any); got["a"] != "b" {
				t.Errorf("any is %v", got)
			}
			got, _ := s.Get("bytes").([]byte)
			if string(got) != "kept" {
				t.Errorf("bytes are %q", got)
			}
			clear(got)
		})
	}
}
