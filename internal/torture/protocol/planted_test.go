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

// planted is a fault in the core, made by replacing text in one of its files, and the
// scenario that finds it.
type planted struct {
	name, file, where string
	replace           []string // old and new, in turn
}

var plants = []planted{
	{"a conflict is taken for a success", "commit.go", "writers", []string{
		"err = t.write(ctx, now, n)\n\t\tswitch {\n\t\tcase err == nil:",
		"err = t.write(ctx, now, n)\n\t\tswitch {\n\t\tcase err == nil, errors.Is(err, ErrConflict):"}},
	{"Destroy deletes nothing", "commit.go", "logout", []string{
		"err = store.Delete(ctx, st.id)", "_ = st\n\t\t\terr = nil"}},
	{"the last Save wins", "commit.go", "writers", []string{
		"err = t.s.m.store.Save(ctx, rec, prev)",
		"if at, e := t.s.m.store.Load(ctx, rec.ID); e == nil && prev != 0 {\n\t\t\tprev = at.Version\n\t\t}\n" +
			"\t\terr = t.s.m.store.Save(ctx, rec, prev)"}},
	{"a successor counts as seen when it is made", "token.go", "rotation", []string{
		"nonce: n, why: why, at: now}", "nonce: n, why: why, at: now, seen: now}"}},
	{"a successor counts as seen when it is issued", "settle.go", "rotation", []string{
		"l.shown, l.standing, l.presented = l.token.secret, current, false",
		"l.shown, l.standing, l.presented = l.token.secret, current, true"}},
	{"a session that is not there is saved anew", "commit.go", "logout", []string{
		"err = t.s.m.store.Save(ctx, rec, prev)",
		"err = t.s.m.store.Save(ctx, rec, prev)\n\t\tif absent(err) {\n" +
			"\t\t\terr = t.s.m.store.Save(ctx, rec, 0)\n\t\t}"}},
	{"a login keeps the token", "decide.go", "twin", []string{
		"p.rotate(n, signedIn, now)", "p.todo, p.cookie = doSave, setCookie"}},
	{"a form token is used without a Save", "form.go", "form", []string{
		"err := s.spend(ctx, use)",
		"s.look()\n\terr := errSpent\n\tif holds(s.work.forms, m) {\n\t\ts.apply(use)\n\t\terr = nil\n\t}\n\ts.mu.Unlock()"}},
	{"a commit does not look whether the time is over", "decide.go", "idle", []string{
		"return a.life.base.stored() && a.cfg.expired(a.life.base, now)", "return false"}},
	{"an expired session is opened", "load.go", "lifetime", []string{
		"case m.cfg.expired(st, microNow()):", "case false:"}},
	{"a Save that landed is not recognised", "decide.go", "writers", []string{
		"case slices.Contains(st.versions, mine):", "case false:"}},
	{"each try has another version", "commit.go", "writers", []string{
		"\t\tnow := microNow()\n\t\tt.behind = t.behind",
		"\t\tnow := microNow()\n\t\tt.version = newVersion()\n\t\tt.behind = t.behind"}},
	{"a panic commits", "middleware.go", "writers", []string{
		"s.commitLast(x.Context, false)\n\t\ts.Discard()", "s.commitLast(x.Context, true)\n\t\ts.Discard()"}},
	{"status 500 commits", "middleware.go", "writers", []string{
		"committed := status < http.StatusInternalServerError", "committed := status < 600"}},
	{"a failed commit is answered as a success", "middleware.go", "writers", []string{
		"} else if err != nil {\n\t\tx.fail(err)\n\t\treturn err\n\t}", "} else {\n\t\t_ = err\n\t}"}},
	{"a login's twin begins a session of its own", "decide.go", "twin", []string{
		"case a.login && st != nil && v.twin && st.user == a.user:", "case false:"}},
	{"another user inherits the session", "session.go", "switch", []string{
		"another && !st.joins {\n\t\t\tst.clear()", "another && !st.joins {"}},
	{"a stale request is merged", "decide.go", "switch", []string{
		"case st != nil && v.opens():", "case st != nil && (v.opens() || v.standing == superseded && !a.login):"}},
	{"a reused token ends nothing", "load.go", "thief", []string{"if m.cfg.KeepOnReuse {", "if true {"}},
	{"a replaced token is good for ever", "token.go", "thief", []string{
		"if first.seen != 0 && arrived > first.seen.add(grace) {", "if false {"}},
	{"a replaced token is dead at once", "decide.go", "rotation", []string{
		"p.rotate(n, periodic, now)", "p.rotate(n, renewed, now)"}},
	{"successors are drawn, not derived", "token.go", "rotation", []string{
		"next := v.successor(n)", "next := newToken().secret"}},
	{"an empty session is deleted whatever it holds by then", "commit.go", "empty-two-managers", []string{
		"if err := t.save(ctx, rec, t.life.base.version); err != nil {",
		"if err := t.save(ctx, rec, t.life.base.version); err != nil && t.plan.todo != doEnd {"}},
	{"an update is not done again on the newer value", "key.go", "writers", []string{
		"if e := st.values.get(k.name); e.ok {\n\t\tif old", "if e := s.life.base.values.get(k.name); e.ok {\n\t\tif old"}},
	{"lost updates are let through", "decide.go", "writers", []string{
		"; lost && !a.own {", "; lost && false {"}},
	{"a logout that failed is acknowledged", "commit.go", "logout", []string{
		"\tif err == nil {\n\t\treturn nil\n\t}\n\terr = withCause(err, first)", "\tif true {\n\t\treturn nil\n\t}"}},
	{"Renew keeps the token", "decide.go", "renew", []string{"p.rotate(n, renewed, now)", "p.todo = doSave"}},
	{"a renewed token still opens", "token.go", "renew", []string{
		"if len(changes) > 0 {", "if len(changes) > 0 && changes[0].why == signedIn {"}},
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
	for _, p := range plants {
		p.patched(t)
	}
}

// TestPlanted builds the explorer with each fault in the core. It must find it within
// a minute.
func TestPlanted(t *testing.T) {
	if os.Getenv("TORTURE_PLANT") == "" {
		return
	}
	for _, p := range plants {
		t.Run(p.name, p.find)
	}
}

var foundIn = regexp.MustCompile(`schedule (\d+) fails after (\S+):`)

func (p *planted) find(t *testing.T) {
	bin := p.build(t)
	began := time.Now()
	cmd := exec.Command(bin, "-test.run=^TestScenarios$/^"+p.where+"$", "-test.v")
	cmd.Env = append(os.Environ(), "TORTURE_PLANT=", "TORTURE_TERSE=1", "TORTURE_SECONDS=60")
	out, err := cmd.CombinedOutput()
	m := foundIn.FindSubmatch(out)
	if err == nil || m == nil {
		t.Fatalf("not found in %v: %v\n%s", time.Since(began), err, out)
	}
	t.Logf("found by %s, schedule %s, in %s", p.where, m[1], m[2])
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
