package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// trouble is what befalls a store while it is in use.
type trouble struct {
	name   string
	cause  string // as the log must name it
	stores string // that it is for
	fails  string // those of which some request must have failed; the others keep open what they need
	begin  func(dir string) (end func() error, err error)
}

var troubles = []trouble{
	{"too many open files", syscall.EMFILE.Error(), "file bolt gob", "file", noDescriptors},
	{"a directory that is read-only", syscall.EACCES.Error(), "file bolt gob", "file", readOnly},
	{"a directory that was moved away", syscall.ENOENT.Error(), "bolt gob", "bolt gob", moved},
}

// A client is told 503 for as long as the trouble lasts, or what is true; the log names
// the cause; nothing that was acknowledged is lost, and nothing else is there; and it all
// goes on when the cause is gone, without a restart. A file store whose directory is
// removed begins anew: see TestFileStoreHeals.
func TestStoresOutliveTrouble(t *testing.T) {
	for _, tr := range troubles {
		for _, name := range strings.Fields(tr.stores) {
			t.Run(tr.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				cmd := exec.Command(os.Args[0]) // its limits and its user are its own
				cmd.Env = append(os.Environ(), troubleEnv+"="+tr.name+":"+name+":"+dir)
				out, err := cmd.CombinedOutput()
				if err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				t.Logf("%s", out)
			})
		}
	}
}

const troubleEnv = "SESSION2_TORTURE_TROUBLE"

// outlive is the child of TestStoresOutliveTrouble.
func outlive(text string) error {
	part := strings.SplitN(text, ":", 3)
	for _, tr := range troubles {
		if tr.name == part[0] {
			return (&patient{trouble: tr, kind: part[1], dir: part[2]}).outlive()
		}
	}
	return fmt.Errorf("there is no trouble %q", part[0])
}

// patient is a site whose store has trouble.
type patient struct {
	trouble
	kind, dir string
	store     session2.Store
	m         *session2.Manager
	log       testsite.Log
	browsers  []*testsite.Browser
	counts    []int // of each browser's visits; -1: it has signed out
	failed    int
	uncertain bool // of the latest failure
	wrong     []error
}

func (p *patient) wrongf(format string, args ...any) {
	p.wrong = append(p.wrong, fmt.Errorf(format, args...))
}

func (p *patient) url() string { return p.kind + ":" + filepath.Join(p.dir, "in", "sessions") }

func (p *patient) outlive() error {
	if err := ordinary(p.dir); err != nil {
		return err
	}
	if err := errors.Join(os.Mkdir(filepath.Join(p.dir, "in"), 0o700), p.open()); err != nil {
		return err
	}
	for i := range 6 {
		p.browsers, p.counts = append(p.browsers, new(testsite.Browser)), append(p.counts, 0)
		p.count(i)
	}
	if p.failed > 0 {
		return fmt.Errorf("failed before the trouble: %s", p.log.String())
	}
	end, err := p.begin(p.dir)
	if err != nil {
		return err
	}
	p.suffer()
	if err := end(); err != nil {
		return err
	}
	failed := p.failed
	p.recover("when it is over")
	if err := errors.Join(session2.Close(p.store), p.open()); err != nil {
		return err
	}
	p.recover("opened again")
	if strings.Contains(p.fails, p.kind) && failed == 0 {
		p.wrongf("nothing failed: there was no trouble")
	}
	if failed > 0 && !strings.Contains(p.log.String(), p.cause) {
		p.wrongf("the log does not say %q:\n%s", p.cause, p.log.String())
	}
	fmt.Printf("%d requests of some 20 failed", failed)
	return errors.Join(p.wrong...)
}

func (p *patient) open() (err error) {
	if p.store, err = session2.Open(context.Background(), p.url()); err != nil {
		return err
	}
	p.m, err = session2.NewManager(p.store, session2.Config{
		Logger: p.log.Logger(), CommitTimeout: 100 * time.Millisecond,
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			p.uncertain = errors.Is(err, session2.ErrUncertain)
			p.log.Logger().Error("failed", "error", err)
		}, // which leaves the status to the manager
	})
	return err
}

// serve serves a request of a browser, and returns whether it was told of a success.
func (p *patient) serve(b *testsite.Browser, h func(s *session2.Session)) bool {
	r := httptest.NewRequest("GET", "https://example.com/", nil)
	b.Send(r)
	w := httptest.NewRecorder()
	p.uncertain = false
	p.m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h(p.m.Session(r))
		fmt.Fprint(w, "a page")
	})).ServeHTTP(w, r)
	res := w.Result()
	b.Receive(res)
	if w.Code != 200 {
		p.failed++
		if w.Code != 503 || len(res.Cookies()) > 0 || strings.Contains(w.Body.String(), "page") {
			p.wrongf("got status %d, cookies %v, %q, want 503 and nothing else", w.Code, res.Cookies(), w.Body)
		}
	}
	return w.Code == 200
}

var visits = session2.NewKey[int]("visits")

// count has a browser visit the site once more.
func (p *patient) count(i int) bool {
	acked := p.serve(p.browsers[i], func(s *session2.Session) {
		if s.IsNew() {
			s.SetUser("ann")
		}
		visits.Update(s, func(n int) int { return n + 1 })
	})
	if acked {
		p.counts[i]++
	} else if p.uncertain {
		p.look(i, true)
	}
	return acked
}

// look compares what a browser sees with what it was told. Of an uncertain outcome it
// finds out, if it can.
func (p *patient) look(i int, uncertain bool) {
	n := -1
	if !p.serve(p.browsers[i].Clone(), func(s *session2.Session) {
		if s.User() == "ann" {
			n, _ = visits.Get(s)
		}
	}) {
		return
	}
	if uncertain && n == p.counts[i]+1 {
		p.counts[i] = n
	}
	if n != p.counts[i] {
		p.wrongf("browser %d sees %d, want %d", i, n, p.counts[i])
	}
}

// suffer is what goes on in the midst of the trouble.
func (p *patient) suffer() {
	for i := range p.browsers[:4] {
		p.count(i)
		p.look(i, false)
	}
	if p.serve(p.browsers[4], (*session2.Session).Destroy) {
		p.counts[4] = -1
	}
	late := &testsite.Browser{}
	if p.serve(late, func(s *session2.Session) {
		s.SetUser("ann")
		visits.Set(s, 1)
	}) {
		p.browsers, p.counts = append(p.browsers, late), append(p.counts, 1)
	}
	s, err := session2.Open(context.Background(), p.url())
	inUse := p.kind == "bolt" && err != nil && strings.Contains(err.Error(), "in use") // by us
	switch {
	case err == nil:
		p.wrongf("the store opens in the midst of the trouble")
		session2.Close(s)
	case !inUse && !strings.Contains(err.Error(), p.cause):
		p.wrongf("Open: %v, want one that says %q", err, p.cause)
	}
}

// recover wants everything to be as it was told, and to go on.
func (p *patient) recover(when string) {
	before := p.failed
	for i, n := range p.counts {
		if p.look(i, true); n >= 0 && !p.count(i) {
			p.wrongf("%s: browser %d is refused:\n%s", when, i, p.log.String())
		}
	}
	if p.failed > before {
		p.wrongf("%s: %d requests failed", when, p.failed-before)
	}
	ctx := context.Background()
	if err := session2.Setup(ctx, p.store); err != nil {
		p.wrongf("%s: Setup: %w", when, err)
	}
	if f, ok := p.store.(*session2.FileStore); ok {
		if users, due, err := f.CheckIndexes(ctx); len(users)+len(due) > 0 || err != nil {
			p.wrongf("%s: CheckIndexes: %v, %v, %v", when, users, due, err)
		}
	}
	alive, listed := 0, 0
	for _, n := range p.counts {
		alive += min(1, n+1)
	}
	for _, err := range p.m.Sessions(ctx, "ann") {
		if err != nil {
			p.wrongf("%s: Sessions: %w", when, err)
		}
		listed++
	}
	if listed < alive || listed > len(p.browsers)+1 { // one more, whose client was told 503 in doubt
		p.wrongf("%s: %d sessions are listed, want %d", when, listed, alive)
	}
}

// ordinary makes this process one of a user whom the system's permissions bind.
func ordinary(dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	const nobody = 65534
	return errors.Join(os.Chmod(filepath.Dir(dir), 0o711), os.Chown(dir, nobody, nobody),
		syscall.Setgroups(nil), syscall.Setgid(nobody), syscall.Setuid(nobody))
}

// noDescriptors leaves this process no file to open.
func noDescriptors(string) (func() error, error) {
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		return nil, err
	}
	few := was
	few.Cur = 64
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few); err != nil {
		return nil, err
	}
	var taken []*os.File
	for {
		f, err := os.Open(os.DevNull)
		if errors.Is(err, syscall.EMFILE) {
			break
		}
		if err != nil {
			return nil, err
		}
		taken = append(taken, f)
	}
	return func() error {
		for _, f := range taken {
			f.Close()
		}
		return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was)
	}, nil
}

// readOnly takes this user's right to write from all that the store has.
func readOnly(dir string) (func() error, error) {
	chmod := func(bits fs.FileMode) error {
		return filepath.WalkDir(filepath.Join(dir, "in"), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				return os.Chmod(path, 0o500|bits)
			}
			return errors.Join(err, os.Chmod(path, 0o400|bits))
		})
	}
	return func() error { return chmod(0o200) }, chmod(0)
}

// moved moves the directory away, and back in the place of whatever has come there.
func moved(dir string) (func() error, error) {
	in, away := filepath.Join(dir, "in"), filepath.Join(dir, "away")
	return func() error { return errors.Join(os.RemoveAll(in), os.Rename(away, in)) }, os.Rename(in, away)
}
