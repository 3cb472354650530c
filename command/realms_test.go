package command

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/session2/session2"
)

// signIn makes a session in a realm; for the user "" one that holds a value.
func signIn(t testing.TB, store session2.Store, realm, user string) string {
	t.Helper()
	m, err := session2.NewManager(store, session2.Config{Realm: realm, Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	s, err := m.Open(t.Context(), "")
	must(t, err)
	s.Set("color", "red")
	if user != "" {
		s.SetUser(user)
		s.SetIdleTimeout(-1)
	}
	must(t, s.Commit(t.Context()))
	return s.ID().String()
}

// realms makes a store with alice twice in the default realm and once in the
// shop, where bob is as well, and a stranger, and returns the shop's IDs.
func realms(t testing.TB, url string) (alice, bob, stranger string) {
	t.Helper()
	session(t, "setup", url).want(0)
	with(t, url, func(store session2.Store) {
		signIn(t, store, "", "alice")
		signIn(t, store, "", "alice")
		alice, bob = signIn(t, store, "shop", "alice"), signIn(t, store, "shop", "bob")
		stranger = signIn(t, store, "shop", "")
	})
	return alice, bob, stranger
}

// owners returns whose sessions list printed, in order.
func (r ran) owners() string {
	r.t.Helper()
	var list []string
	for _, e := range r.objects() {
		list = append(list, fmt.Sprintf("%v/%v", e["realm"], e["user"]))
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

// ownedBy checks whose sessions list printed, and that no key of a store's index
// is among the users.
func (r ran) ownedBy(want string) ran {
	r.t.Helper()
	if got := r.hides("\x1f", `x1f`, `u001f`).owners(); got != want {
		r.t.Errorf("session2 %q: got the sessions of %q, want %q", r.args, got, want)
	}
	return r
}

// warns checks that standard error names the shop, or that it is empty.
func (r ran) warns(want bool) ran {
	r.t.Helper()
	if got := strings.Contains(r.stderr, "-realm shop"); got != want || !want && r.stderr != "" {
		r.t.Errorf("session2 %q: standard error is %q, want a hint: %v", r.args, r.stderr, want)
	}
	return r
}

// TestRealms shows and selects the sessions of two managers on each store.
func TestRealms(t *testing.T) {
	for _, kind := range stores {
		t.Run(kind.name, func(t *testing.T) {
			url := kind.url(t)
			alice, bob, stranger := realms(t, url)
			testRealmsListed(t, url)
			testRealmsShown(t, url, alice, stranger)
			testRealmsCounted(t, url)
			testRealmsDeleted(t, url, bob)
		})
	}
}

func testRealmsListed(t *testing.T, url string) {
	t.Helper()
	all, shop := "/alice /alice shop/ shop/alice shop/bob", "shop/ shop/alice shop/bob"
	session(t, "list", "-json", url).want(0).warns(false).ownedBy(all)
	session(t, "list", "-json", "-realm", "shop", url).want(0).warns(false).ownedBy(shop)
	session(t, "list", "-json", "-values", "-realm", "shop", url).want(0).warns(false).ownedBy(shop)
	session(t, "list", "-json", "-realm", "", url).want(0).warns(false).ownedBy("/alice /alice")
	session(t, "list", "-json", "-realm", "elsewhere", url).want(0).warns(false).ownedBy("")
	session(t, "list", "-json", "-user", "alice", url).want(0).warns(true).ownedBy("/alice /alice")
	session(t, "list", "-json", "-user", "alice", "-realm", "", url).want(0).warns(false).ownedBy("/alice /alice")
	session(t, "list", "-json", "-user", "alice", "-realm", "shop", url).want(0).warns(false).ownedBy("shop/alice")
	session(t, "list", "-json", "-user", "bob", url).want(0).warns(true).ownedBy("")
	session(t, "list", "-json", "-user", "carol", url).want(0).warns(false).ownedBy("")
	session(t, "list", "-json", "-user", "\x1fshop\x1falice", url).want(0).warns(false).ownedBy("")

	table := strings.Split(session(t, "list", url).want(0).hides("\x1f", `x1f`).stdout, "\n")
	counts := make(map[string]int)
	for _, line := range table[:len(table)-1] {
		f := strings.Fields(line)
		counts[f[4]+" "+f[len(f)-1]]++
	}
	want := map[string]int{"USER REALM": 1, "alice -": 2, "alice shop": 1, "bob shop": 1, "- shop": 1}
	if fmt.Sprint(counts) != fmt.Sprint(want) {
		t.Errorf("list: got %v, want %v", counts, want)
	}
}

func testRealmsShown(t *testing.T, url, alice, stranger string) {
	t.Helper()
	session(t, "show", url, alice).want(0).hides("\x1f", `x1f`).
		says("realm     shop\nuser      alice\n").says("idle      none\n")
	shown := session(t, "show", "-json", url, alice).want(0).object()
	if shown["realm"] != "shop" || shown["user"] != "alice" || shown["idle_timeout"] != "none" {
		t.Errorf("show -json: got %v", shown)
	}
	session(t, "show", url, stranger).want(0).says("realm     shop\nuser      -\n").says("idle      -\n")
}

func testRealmsCounted(t *testing.T, url string) {
	t.Helper()
	session(t, "stats", url).want(0).
		says("realm      -: 2 records, 2 signed in\nrealm      shop: 3 records, 2 signed in\n")
	all := session(t, "stats", "-json", url).want(0).number("records", 5).number("signed_in", 4).object()
	want := "[map[realm: records:2 signed_in:2] map[realm:shop records:3 signed_in:2]]"
	if got := fmt.Sprint(all["realms"]); got != want {
		t.Errorf("stats -json: got the realms %s, want %s", got, want)
	}
	session(t, "stats", "-json", "-realm", "shop", url).want(0).number("records", 3).number("signed_in", 2)
	session(t, "stats", "-json", "-realm", "", url).want(0).number("records", 2).number("signed_in", 2)
}

func testRealmsDeleted(t *testing.T, url, bob string) {
	t.Helper()
	session(t, "delete-user", "-n", url, "bob").want(0).warns(true).says("would have deleted 0")
	session(t, "delete-user", "-n", "-realm", "shop", url, "alice").want(0).warns(false).says("would have deleted 1")
	session(t, "delete-user", url, "alice").want(0).warns(true).says("deleted 2")
	session(t, "list", "-json", url).want(0).ownedBy("shop/ shop/alice shop/bob")
	deleted := session(t, "delete-user", "-json", "-realm", "shop", url, "alice").want(0).
		warns(false).number("deleted", 1).object()
	if deleted["realm"] != "shop" || deleted["user"] != "alice" {
		t.Errorf("delete-user -json: got %v", deleted)
	}
	session(t, "delete-user", url, "alice").want(0).warns(false).says("deleted 0")
	session(t, "delete", url, bob).want(0).says("deleted 1")
	session(t, "list", "-json", url).want(0).ownedBy("shop/")
}

// TestRealmsOfTheUnreadable lists records whose data cannot be read: what can be
// told of them is told, and they are named, whatever -realm selects.
func TestRealmsOfTheUnreadable(t *testing.T) {
	for _, kind := range stores {
		t.Run(kind.name, func(t *testing.T) {
			url := kind.url(t)
			realms(t, url)
			var ids []string
			with(t, url, func(store session2.Store) {
				for i, user := range []string{"\x1fshop\x1fcarol", "dave", ""} {
					rec := session2.Record{
						ID: session2.ID{byte(i)}, Version: 1, User: user, Data: []byte("scrambled"),
						Created: time.Now(), Accessed: time.Now(), Expires: time.Now().Add(time.Hour),
					}
					must(t, store.Save(t.Context(), rec, 0))
					ids = append(ids, rec.ID.String())
				}
			})
			all := "/alice /alice /dave <nil>/ shop/ shop/alice shop/bob shop/carol"
			session(t, "list", "-json", url).want(exitCorrupt).names(ids).ownedBy(all)
			session(t, "list", "-json", "-values", url).want(exitCorrupt).names(ids).ownedBy(all)
			session(t, "list", "-json", "-realm", "shop", url).want(exitCorrupt).names(ids).
				ownedBy("shop/ shop/alice shop/bob shop/carol")
			session(t, "list", "-json", "-user", "carol", url).want(0).warns(true).ownedBy("")
			session(t, "list", "-json", "-user", "carol", "-realm", "shop", url).want(exitCorrupt).
				says(ids[0]).ownedBy("shop/carol")
			session(t, "show", url, ids[0]).want(exitCorrupt).
				says("realm     shop\nuser      carol\n").hides("\x1f", "scrambled")
			session(t, "show", url, ids[2]).want(exitCorrupt).says("realm     ?\nuser      -\n").hides("scrambled")
			session(t, "stats", url).want(exitCorrupt).says("realm      ?: 1 records, 0 signed in\n")
			session(t, "stats", "-json", "-realm", "shop", url).want(exitCorrupt).
				number("records", 4).number("corrupt", 3)
			session(t, "delete-user", "-realm", "shop", url, "carol").want(0).says("deleted 1")
		})
	}
}

// TestStoresWithoutRealms finds that who has none hears of none but in the head
// of the list.
func TestStoresWithoutRealms(t *testing.T) {
	url := stores[1].url(t)
	session(t, "setup", url).want(0)
	with(t, url, func(store session2.Store) { signIn(t, store, "", "alice") })
	session(t, "list", "-user", "alice", url).want(0).warns(false)
	session(t, "stats", url).want(0).hides("realm")
	session(t, "delete-user", url, "alice").want(0).warns(false)
}

// TestRealmsWithOddNames finds that a realm's name is no way around another one.
func TestRealmsWithOddNames(t *testing.T) {
	url := stores[1].url(t)
	session(t, "setup", url).want(0)
	with(t, url, func(store session2.Store) {
		signIn(t, store, "?", "alice")
		signIn(t, store, "-", "alice")
		signIn(t, store, "\u202eback", "alice")
		signIn(t, store, "shop", "b\x1falice")
	})
	list := session(t, "list", url).want(0).
		says(`  "?"`).says(`  "-"`).says(`  "\u202eback"`).hides("\u202e", "\x1f", "shop\\x1f")
	if got := strings.Count(list.stdout, "\n"); got != 5 {
		t.Errorf("list: got %d lines, want 5", got)
	}
	session(t, "delete-user", "-realm", "shop\x1fb", url, "alice").want(exitUsage)
	session(t, "delete-user", "-realm", "?", url, "alice").want(0).says("deleted 1")
	session(t, "show", "-realm", "shop", url, strings.Repeat("0", 32)).want(exitUsage)
	session(t, "delete-old", "-realm", "shop", "-age", "1h", url).want(exitUsage)
	session(t, "stats", "-json", url).want(0).number("records", 3)
}
