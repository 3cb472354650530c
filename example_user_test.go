package session2_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http/httptest"
	"net/url"
	"strings"
	"time"

	"github.com/session2/session2"
)

// login signs a user in on one device, without HTTP.
func login(m *session2.Manager, user string) *session2.Session {
	ctx := context.Background()
	s, err := m.Open(ctx, "")
	if err != nil {
		log.Fatal(err)
	}
	s.SetUser(user)
	if err := s.Commit(ctx); err != nil {
		log.Fatal(err)
	}
	return s
}

// A user ends a session that a page of their devices has listed.
func ExampleManager_Sessions() {
	ctx := context.Background()
	m := manager(session2.Config{})
	laptop, phone := login(m, "alice"), login(m, "alice")
	chosen := phone.ID() // an ID that the page's form has sent: it may be anybody's

	for info, err := range m.Sessions(ctx, laptop.User()) {
		if err != nil {
			log.Fatal(err)
		}
		if info.ID == chosen {
			fmt.Println(m.Revoke(ctx, info.ID))
		}
	}
	fmt.Println(laptop.Check(ctx))
	fmt.Println(errors.Is(phone.Check(ctx), session2.ErrNotFound))
	// Output:
	// <nil>
	// <nil>
	// true
}

// After a change of the password, the user's other sessions end.
func ExampleManager_RevokeOthers() {
	ctx := context.Background()
	m := manager(session2.Config{})
	login(m, "alice")
	login(m, "alice")
	fmt.Println(m.RevokeOthers(ctx, login(m, "alice")))
	fmt.Println(m.RevokeUser(ctx, "alice")) // and what is left
	// Output:
	// 2 <nil>
	// 1 <nil>
}

// The second factor is another level, and replaces the token.
func ExampleSession_SetLevel() {
	ctx := context.Background()
	s := login(manager(session2.Config{}), "alice") // by a password
	fmt.Println(s.Level())

	s.SetLevel(2) // the code was right
	if err := s.Commit(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println(s.Level() >= 2 && s.AuthenticatedWithin(5*time.Minute)) // ask this before a payment
	// Output:
	// 1
	// true
}

func ExampleAAL2() {
	cfg := session2.AAL2()
	cfg.MaxPerUser = 5
	fmt.Println(manager(cfg) != nil, cfg.Lifetime, cfg.IdleTimeout)
	// Output: true 24h0m0s 1h0m0s
}

func ExampleSession_CSRFToken() {
	m := manager(session2.Config{})
	s := login(m, "alice")
	token := s.CSRFToken() // for the form's hidden field csrf_token
	for _, sent := range []string{token, "another site's guess"} {
		form := url.Values{"csrf_token": {sent}}
		r := httptest.NewRequest("POST", "/transfer", strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		fmt.Println(s.ValidCSRFToken(r))
	}
	// Output:
	// true
	// false
}

// A session that was ended meanwhile stores nothing.
func ExampleSession_Commit() {
	ctx := context.Background()
	m := manager(session2.Config{})
	s := login(m, "alice")
	if _, err := m.RevokeUser(ctx, "alice"); err != nil {
		log.Fatal(err)
	}
	s.Set("color", "green")
	fmt.Println(errors.Is(s.Commit(ctx), session2.ErrNotFound))
	// Output: true
}
