package sqltest

import (
	"archive/tar"
	"compress/gzip"
	"database/sql"
	"encoding/gob"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// The stores in testdata/golden/v1 were written by an earlier release: see the
// README.md there. What follows opens copies of them.

const (
	goldenDir = "testdata/golden/v1"

	// goldenCentury is how long golden sessions need to live: they began in 2000.
	goldenCentury = 100 * 365 * 24 * time.Hour
)

// goldenCart is what sessions hold in the application's own type.
type goldenCart struct {
	Items []string
	Count int
}

func init() { gob.RegisterName("golden.Cart", goldenCart{}) }

// goldenSpell spells a value and its type as sessions.json does: goldenCart was
// in another package when that was written.
func goldenSpell(v any) string {
	return strings.Replace(fmt.Sprintf("%T %v", v, v), "sqltest.", "session2_test.", 1)
}

var (
	goldenCartKey = session2.NewKey[goldenCart]("key.cart")
	goldenMapKey  = session2.NewKey[map[string]int]("key.map")
)

// goldenSession is a session as sessions.json describes it.
type goldenSession struct {
	Name, Codec, ID, User           string
	Token, Former                   string // Former is the token before, if there was one
	Created                         time.Time
	Lifetime                        time.Duration // of SetLifetime
	RemoteAddr, UserAgent           string
	Versions                        int // that the record remembers
	Values                          map[string]string
	Flashes, FormTokens, CSRFTokens []string
}

// golden is a copy of a golden store, opened by this release.
type golden struct {
	store session2.Store
	list  []*goldenSession
}

// eachGolden calls test with a copy of each golden store.
func eachGolden(t *testing.T, test func(t *testing.T, g golden)) {
	text, err := os.ReadFile(filepath.Join(goldenDir, "sessions.json"))
	testsite.Must(t, err)
	var lists map[string][]*goldenSession
	testsite.Must(t, json.Unmarshal(text, &lists))
	for name, path := range map[string]string{"file": "sessions", "bolt": "sessions.db", "gob": "sessions.gob"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			goldenUnpack(t, filepath.Join(goldenDir, name+".tar.gz"), dir)
			u := url.URL{Scheme: name, Path: filepath.ToSlash(filepath.Join(dir, path))}
			store, err := session2.Open(t.Context(), u.String())
			testsite.Must(t, err)
			t.Cleanup(func() { session2.Close(store) })
			testsite.Must(t, session2.Setup(t.Context(), store))
			test(t, golden{store, lists[name]})
		})
	}
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		test(t, golden{goldenTable(t, sys, dsn), lists[sys.name]})
	})
}

// goldenUnpack unpacks what the earlier release left on the disk, modes
// included.
func goldenUnpack(t *testing.T, from, dir string) {
	t.Helper()
	f, err := os.Open(from)
	testsite.Must(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	testsite.Must(t, err)
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return
		}
		testsite.Must(t, err)
		to := filepath.Join(dir, filepath.FromSlash(h.Name))
		if h.Typeflag == tar.TypeDir {
			testsite.Must(t, os.Mkdir(to, h.FileInfo().Mode().Perm()))
			continue
		}
		b, err := io.ReadAll(r)
		testsite.Must(t, err)
		testsite.Must(t, os.WriteFile(to, b, h.FileInfo().Mode().Perm()))
	}
}

// goldenTable makes the tables as the earlier release did, fills them with its
// rows, and finds that Setup leaves both alone.
func goldenTable(t *testing.T, sys sqlSystem, dsn string) session2.Store {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(goldenDir, sys.name+".sql"))
	testsite.Must(t, err)
	db, table := openSQL(t, sys.driver, dsn), sqlTable(t.TempDir())
	for stmt := range strings.SplitSeq(strings.ReplaceAll(string(text), "golden_v1", table), ";\n") {
		if stmt != "" {
			_, err := db.Exec(stmt)
			testsite.Must(t, err)
		}
	}
	before := goldenRows(t, db, table)
	store := sys.store(t, db, session2.SQLOptions{Table: table})
	for range 2 {
		testsite.Must(t, store.Setup(t.Context()))
	}
	if after := goldenRows(t, db, table); !slices.Equal(after, before) {
		t.Errorf("Setup changed the tables: got %q, want %q", after, before)
	}
	return store
}

// goldenRows returns all that is in the tables, and what columns they have.
func goldenRows(t *testing.T, db *sql.DB, table string) (text []string) {
	t.Helper()
	for _, query := range []string{
		"SELECT * FROM {t} ORDER BY id",
		"SELECT * FROM {t}_meta",
		"SELECT table_name, column_name, data_type FROM information_schema.columns\n" +
			"WHERE table_name LIKE '{t}%' ORDER BY 1, 2",
	} {
		rows, err := db.Query(strings.ReplaceAll(query, "{t}", table))
		testsite.Must(t, err)
		defer rows.Close()
		names, err := rows.Columns()
		testsite.Must(t, err)
		row := make([]any, len(names))
		for i := range row {
			row[i] = new(string)
		}
		for rows.Next() {
			testsite.Must(t, rows.Scan(row...))
			for _, v := range row {
				text = append(text, *v.(*string))
			}
		}
		testsite.Must(t, rows.Err())
	}
	return text
}

// manager returns one as the earlier release was configured: its sessions are
// alive, and its replaced tokens within their grace.
func (g golden) manager(t *testing.T, change func(*session2.Config)) *session2.Manager {
	t.Helper()
	cfg := session2.Config{
		Lifetime:    2 * goldenCentury,
		IdleTimeout: -1,
		RenewGrace:  2 * goldenCentury,
		Logger:      slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&cfg)
	}
	m, err := session2.NewManager(g.store, cfg)
	testsite.Must(t, err)
	return m
}

// named returns the session of that name.
func (g golden) named(name string) *goldenSession {
	return g.list[slices.IndexFunc(g.list, func(e *goldenSession) bool { return e.Name == name })]
}

// goldenHandler is what a handler does before it writes its body.
type goldenHandler func(s *session2.Session, r *http.Request)

// goldenVisit is a request with a token and its answer. It returns the cookie that was set, or nil.
func goldenVisit(t *testing.T, m *session2.Manager, token string, f goldenHandler) *http.Cookie {
	t.Helper()
	r := httptest.NewRequest("POST", "/", nil)
	r.Header.Set("Cookie", "__Host-session="+token)
	w := httptest.NewRecorder()
	m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f(session2.FromContext(r.Context()), r)
		io.WriteString(w, "body")
	})).ServeHTTP(w, r)
	if w.Code != http.StatusOK || w.Body.String() != "body" {
		t.Errorf("got status %d, %q, want the handler's answer", w.Code, w.Body)
	}
	cookies := w.Result().Cookies()
	if len(cookies) == 0 {
		return nil
	}
	return cookies[len(cookies)-1]
}
