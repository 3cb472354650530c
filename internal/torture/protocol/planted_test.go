package protocol

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// planted is a fault in the core, made by replacing text in one of its files, the
// scenario that finds it, and the promise that it breaks.
type planted struct {
	name, file, where string
	breaks            promise
	replace           []string // old and new, in turn
}

var plants = []planted{
	{"a conflict is taken for a success", "commit.go", "writers", keeps, []string{
		"err = t.write(ctx, now, n)\n\t\tswitch {\n\t\tcase err == nil:",
		"err = t.write(ctx, now, n)\n\t\tswitch {\n\t\tcase err == nil, errors.Is(err, ErrConflict):"}},
	{"Destroy deletes nothing", "commit.go", "logout", ended, []string{
		"err = store.Delete(ctx, st.id)", "_ = st\n\t\t\terr = nil"}},
	{"the last Save wins", "commit.go", "writers", keeps, []string{
		"err = t.s.m.store.Save(ctx, rec, prev)",
		"if at, e := t.s.m.store.Load(ctx, rec.ID); e == nil && prev != 0 {\n\t\t\tprev = at.Version\n\t\t}\n" +
			"\t\terr = t.s.m.store.Save(ctx, rec, prev)"}},
	{"a successor counts as seen when it is made", "token.go", "rotation", staysIn, []string{
		"nonce: n, why: why, at: now}", "nonce: n, why: why, at: now, seen: now}"}},
	{"a successor counts as seen when it is issued", "settle.go", "rotation", staysIn, []string{
		"l.shown, l.standing, l.presented = l.token.secret, current, false",
		"l.shown, l.standing, l.presented = l.token.secret, current, true"}},
	{"a session that is not there is saved anew", "commit.go", "logout", ended, []string{
		"err = t.s.m.store.Save(ctx, rec, prev)",
		"err = t.s.m.store.Save(ctx, rec, prev)\n\t\tif absent(err) {\n" +
			"\t\t\terr = t.s.m.store.Save(ctx, rec, 0)\n\t\t}"}},
	{"a login keeps the token", "decide.go", "twin", ended, []string{
		"p.rotate(n, signedIn, now)", "p.todo, p.cookie = doSave, setCookie"}},
	{"a form token is used without a Save", "form.go", "form", single, []string{
		"err := s.spend(ctx, use)",
		"s.look()\n\terr := errSpent\n\tif holds(s.work.forms, m) {\n\t\ts.apply(use)\n\t\terr = nil\n\t}\n\ts.mu.Unlock()"}},
	{"a commit does not look whether the time is over", "decide.go", "idle", ended, []string{
		"return a.life.base.stored() && a.cfg.expired(a.life.base, now)", "return false"}},
	{"an expired session is opened", "load.go", "lifetime", ended, []string{
		"case m.cfg.expired(st, microNow()):", "case false:"}},
	{"a Save that landed is not recognised", "decide.go", "writers", single, []string{
		"case st.versions.contains(mine):", "case false:"}},
	{"each try has another version", "commit.go", "writers", single, []string{
		"\t\tnow := microNow()\n\t\tt.behind = t.behind",
		"\t\tnow := microNow()\n\t\tt.version = newVersion()\n\t\tt.behind = t.behind"}},
	{"a panic commits", "middleware.go", "writers", traceless, []string{
		"s.commitLast(x.Context, false)\n\t\ts.Discard()", "s.commitLast(x.Context, true)\n\t\ts.Discard()"}},
	{"status 500 commits", "middleware.go", "writers", traceless, []string{
		"committed := status < http.StatusInternalServerError", "committed := status < 600"}},
	{"a failed commit is answered as a success", "middleware.go", "writers", keeps, []string{
		"} else if err != nil {\n\t\tx.fail(err)\n\t\treturn err\n\t}", "} else {\n\t\t_ = err\n\t}"}},
	{"a login's twin begins a session of its own", "decide.go", "twin", keeps, []string{
		"case a.joins(st, v):", "case false:"}},
	{"another user inherits the session", "session.go", "switch", apart, []string{
		"another && !st.joins {\n\t\t\tst.clear()", "another && !st.joins {"}},
	{"a stale request is merged", "decide.go", "switch", apart, []string{
		"case st != nil && v.opens():", "case st != nil && (v.opens() || v.standing == superseded && !a.login):"}},
	{"a reused token ends nothing", "load.go", "thief", caught, []string{"if m.cfg.KeepOnReuse {", "if true {"}},
	{"a replaced token is good for ever", "token.go", "thief", caught, []string{
		"if first.seen != 0 && arrived > first.seen.add(grace) {", "if false {"}},
	{"a replaced token is dead at once", "decide.go", "rotation", keeps, []string{
		"p.rotate(n, periodic, now)", "p.rotate(n, renewed, now)"}},
	{"successors are drawn, not derived", "token.go", "rotation", staysIn, []string{
		"next := v.successor(n)", "next := newToken().secret"}},
	{"an empty session is deleted whatever it holds by then", "commit.go", "empty-two-managers", keeps, []string{
		"if err := t.save(ctx, rec, t.life.base.version); err != nil {",
		"if err := t.save(ctx, rec, t.life.base.version); err != nil && t.plan.todo != doEnd {"}},
	{"an update is not done again on the newer value", "key.go", "writers", keeps, []string{
		"if e := st.values.get(k.name); e.ok() {\n\t\tif old", "if e := s.life.base.values.get(k.name); e.ok() {\n\t\tif old"}},
	{"lost updates are let through", "decide.go", "writers", keeps, []string{
		"; lost && !a.own {", "; lost && false {"}},
	{"a logout that failed is acknowledged", "commit.go", "logout", ended, []string{
		"\tif err == nil {\n\t\treturn nil\n\t}\n\terr = withCause(err, first)", "\tif true {\n\t\treturn nil\n\t}"}},
	{"Renew keeps the token", "decide.go", "renew", ended, []string{"p.rotate(n, renewed, now)", "p.todo = doSave"}},
	{"a renewed token still opens", "token.go", "renew", ended, []string{
		"if len(changes) > 0 {", "if len(changes) > 0 && changes[0].why == signedIn {"}},
	// Faults that each other promise is broken by, and that the other scenarios find.
	{"a request whose time is over commits", "commit.go", "timeout-outside", traceless, []string{
		"errors.Is(err, context.DeadlineExceeded) {\n\t\treturn fmt.Errorf(\"session2: save: %w: %w\", errLate, err)",
		"err != nil && false {\n\t\treturn fmt.Errorf(\"session2: save: %w: %w\", errLate, err)"}},
	{"what TimeoutHandler has given up is committed", "middleware.go", "timeout-inside", traceless, []string{
		"committed := status < http.StatusInternalServerError", "committed := status != http.StatusInternalServerError"}},
	{"Hijack replaces a token and tells nobody", "commit.go", "hijack", told, []string{
		"if t.plan.cookie == setCookie && !t.cookie {", "if t.plan.cookie == setCookie && !t.cookie && false {"}},
	{"the cookie of a Commit is lost with Hijack", "middleware.go", "hijack", staysIn, []string{
		"x.header(committed)\n\tx.begun = true", "if status != 101 {\n\t\tx.header(committed)\n\t}\n\tx.begun = true"}},
	{"what a stream leaves to its end is lost", "middleware.go", "events", keeps, []string{
		"s.commit(x.Context) // a failure is an event and in Err: the response has left", ""}},
	{"a dropped commit is told of nothing", "settle.go", "events", told, []string{
		"s.fail(t, o, err)\n\treturn err", "s.fail(t, o, err)\n\tif o == dropped {\n\t\treturn nil\n\t}\n\treturn err"}},
	{"Flashes takes what others have left since", "form.go", "flashes", keeps, []string{
		"return gone[f.id]", "return true"}},
	{"Flashes removes nothing", "form.go", "flashes", single, []string{"if len(taken) > 0 {", "if false {"}},
	{"two first CSRF tokens are two, and one stays", "form.go", "csrf", keeps, []string{
		"if !base.stored() || s.work.renew {", "if true {",
		"st.csrf = addMark(st.csrf, m, maxCSRF)", "st.csrf = []mark{m}"}},
	{"RevokeUser deletes nothing", "manager.go", "revoke-login", ended, []string{
		"n, err = deleteUser(ctx, m.store, key, keep...)", "n = len(ids)"}},
	{"RevokeOthers ends the user's own session", "manager.go", "revoke-others", staysIn, []string{
		"return m.revokeUser(ctx, user, keep)", "_ = keep\n\treturn m.revokeUser(ctx, user)"}},
	{"Discard drops nothing", "session.go", "open", traceless, []string{
		"s.looks.discarded()\n\ts.reset()\n}", "s.looks.discarded()\n}"}},
	{"a session of another realm is opened", "load.go", "realms", apart, []string{
		"case st.realm != m.cfg.Realm:", "case false:"}},
	{"a stale request takes the cookie away", "settle.go", "switch", staysIn, []string{
		"s.broken, s.cookie = err, keepCookie", "s.broken, s.cookie = err, revokeCookie"}},
	{"a reuse is no event", "load.go", "thief", caught, []string{
		"h.hear(Event{Kind: EventReuse, ID: st.id, User: st.user})", ""}},
	{"records hold the token's secret", "token.go", "rotation", secret, []string{
		"retired{hash: v.hash(), nonce: n,", "retired{hash: hash(v), nonce: n,"}},
	{"an error tells the token", "decide.go", "switch", secret, []string{
		"return pending, fmt.Errorf(\"session2: save %v: %w\", id, ErrStale)",
		"return pending, fmt.Errorf(\"session2: save %v: %w\", a.life.token.encode(), ErrStale)"}},
	{"an event tells a value", "decide.go", "writers", secret, []string{
		"\"has changed it in between; Key.Update is made for that: %w\", a.life.token.id, key, ErrLostUpdate)",
		"\"has changed it in between: %q: %w\", a.life.token.id, key, next.values.get(key).data, ErrLostUpdate)"}},
	{"a token that was replaced and never used is good beside its successor", "token.go", "renew", oneToken, []string{
		"if len(changes) > 0 {", "if len(changes) > 0 && changes[0].why == signedIn {"}},
	{"the grace of a replaced token never begins", "decide.go", "rotation", oneToken, []string{
		"p.next.ident = p.next.ident.markSeen(now)", ""}},
	{"a record of a clock that is ahead has expired", "config.go", "clocks-writers", keeps, []string{
		"return now >= st.expires || now >= c.expiry(st)",
		"return now < st.accessed || now >= st.expires || now >= c.expiry(st)"}},
	{"the cookie that a failing store cannot check goes out", "cookie.go", "open-rotation", staysIn, []string{
		"err != nil && s.presents(base, replaced)", "false && s.presents(base, replaced)"}},

	// Key.Commit.
	{"Key.Commit does not ask again about a newer value", "key.go", "commits", keeps, []string{
		"!k.done || !was.equal(k.was)", "!k.done"}},
	{"Key.Commit returns what others have made of the value since", "key.go", "commits", single, []string{
		"k.undecodable(s, bad)\n\t}", "k.undecodable(s, bad)\n\t}\n\tv, _ = k.Get(s)"}},
	{"a refusal is taken for a success", "commit.go", "commits", single, []string{
		"return vetoed, veto", "return nothing, nil"}},
	{"a refusal drops the request's other changes", "settle.go", "commits", keeps, []string{
		"case vetoed:\n\t\treturn err", "case vetoed:\n\t\ts.mu.Lock()\n\t\ts.forget(t)\n\t\ts.mu.Unlock()\n\t\treturn err"}},

	// Config.MaxPerUser.
	{"a login takes another one's turn", "user.go", "max-three", limit, []string{
		"if free {\n\t\t\tprev", "if free || found.Version != 0 {\n\t\t\tprev",
		"return err == nil && rec.Version == t.version", "return err == nil || rec.ID == t.id"}}, // which would notice
	{"the oldest sessions stay", "user.go", "max", limit, []string{
		"for _, p := range t.oldest {", "for _, p := range t.oldest[:0] {"}},
	{"the newest sessions go", "user.go", "max", staysIn, []string{
		"slices.SortFunc(live, place.compare)",
		"slices.SortFunc(live, func(p, q place) int { return q.compare(p) })"}},
	{"a login keeps its turn", "user.go", "max", told, []string{
		"return m.store.Delete(ctx, t.id)", "return nil"}},
	{"a turn that was left is good for a day", "user.go", "max-reject", staysIn, []string{
		"now.add(2 * m.cfg.CommitTimeout)", "now.add(24 * time.Hour)"}},

	// Exclusive.
	{"whose lease has run out commits", "decide.go", "exclusive-stands", keeps, []string{
		"&& a.claim.lost(st):", "&& a.claim.lost(st) && false:"}},
	{"a lease is not renewed", "exclusive.go", "exclusive-long", told, []string{
		"for c.renew(ctx) && sleep(", "for false && c.renew(ctx) && sleep("}},
	{"a dead holder's lease does not run out", "exclusive.go", "exclusive-dies", staysIn, []string{
		"return now >= t.until || t.until", "return t.until"}},
	{"a waiter does not wait", "exclusive.go", "exclusive", told, []string{
		"case err == nil && st.turns.place(c.number) == 0:", "case err == nil:"},
	},
	{"a request has its turn with what it loaded before", "exclusive.go", "exclusive", keeps, []string{
		"if l := &s.life; l.base == base {", "if l := &s.life; l.base == base && false {"}},

	// Streams.
	{"a logout tells no stream", "live.go", "stream", ended, []string{
		"m.tell(e.ID, news{ended: hasEnded(e.ID, e.Kind, ErrNotFound)})", ""}},
	{"a stream is looked after once", "live.go", "stream-elsewhere", ended, []string{"m.watch.again(w)", ""}},
	{"a rotation ends a stream", "live.go", "stream-rotation", staysIn, []string{
		"case v.opens():\n\t\tl.secret", "case v.standing == current:\n\t\tl.secret"}},
	{"a store that fails ends a stream", "live.go", "stream-stays", staysIn, []string{
		"failed := err != nil && !absent(err)", "failed := false && absent(err)"}},
	{"a stream does not hear that its token was replaced before its Save was found", "settle.go",
		"stream-renew-elsewhere", ended, []string{
			"if next.standing == superseded {\n\t\ts.hear(", "if false {\n\t\ts.hear("}},

	// Config.Sealed.
	{"the key of what is sealed follows from what is in the clear", "data.go", "writers", secret, []string{
		"v[:], id[:], \"session2 sealed v1\"", "id[:], id[:], \"session2 sealed v1\""}},
	{"a rotation keeps the key", "decide.go", "rotation", staysIn, []string{
		"encodeSealed(p.next, p.token.secret)", "encodeSealed(p.next, a.life.token.secret)"}},
	{"a commit does not open what others have sealed since", "commit.go", "csrf", told, []string{
		"if st != nil && (v.opens() || t.joins(st, v)) {", "if false {"}},
}

const core = "../../.."

// patched returns the file's text with the fault in it.
func (p *planted) patched(t *testing.T) string {
	data, err := os.ReadFile(filepath.Join(core, p.file))
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for i := 0; i < len(p.replace); i += 2 {
		if n := strings.Count(text, p.replace[i]); n != 1 {
			t.Errorf("%s: the text to replace is in %s %d times: %q", p.name, p.file, n, p.replace[i])
		}
		text = strings.Replace(text, p.replace[i], p.replace[i+1], 1)
	}
	return text
}

// TestPlants checks that the core still has the text that the planted faults
// replace.
func TestPlants(t *testing.T) {
	broken := make(map[promise]bool)
	for _, p := range plants {
		p.patched(t)
		broken[p.breaks] = true
	}
	for _, p := range promises {
		if !broken[p] {
			t.Errorf("no fault breaks the promise %q", p)
		}
	}
}

// TestPlanted builds the explorer with each fault in the core. It must find it within
// a minute.
func TestPlanted(t *testing.T) {
	which := os.Getenv("TORTURE_PLANT")
	if which == "" {
		return
	}
	for _, p := range plants {
		if ok, err := regexp.MatchString(which, p.name); err != nil {
			t.Fatal(err)
		} else if ok || which == "1" {
			t.Run(p.name, func(t *testing.T) {
				t.Parallel() // most of it is building
				p.find(t)
			})
		}
	}
}

var foundIn = regexp.MustCompile(`schedule (\d+) fails after (\S+):`)

func (p *planted) find(t *testing.T) {
	bin := p.build(t)
	began := time.Now()
	cmd := exec.Command(bin, "-test.run=^TestScenarios$/^"+p.where+"$", "-test.v")
	cmd.Env = append(os.Environ(), "TORTURE_PLANT=", "TORTURE_BREAKS="+string(p.breaks), "TORTURE_SECONDS=60")
	out, err := cmd.CombinedOutput()
	m := foundIn.FindSubmatch(out)
	if err == nil || m == nil {
		t.Fatalf("not found in %v: %v\n%s", time.Since(began), err, out)
	}
	t.Logf("%s breaks %q: schedule %s, after %s", p.where, p.breaks, m[1], m[2])
}

// build compiles this package's tests over the core with the fault in it.
func (p *planted) build(t *testing.T) string {
	dir := t.TempDir()
	file, err := filepath.Abs(filepath.Join(core, p.file))
	if err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(dir, p.file)
	if err := os.WriteFile(bad, []byte(p.patched(t)), 0o600); err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{file: bad}})
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "protocol.test")
	cmd := exec.Command("go", "test", "-c", "-vet=off", "-overlay", list, "-o", bin, "-ldflags=-s -w",
		"-gcflags=github.com/session2/session2=-N -l", ".") // a build takes longer than the search
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
}
