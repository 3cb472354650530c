package session2_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// pitfalls is what session libraries are known to get wrong, and the tests that
// it does not happen here.
var pitfalls = []struct {
	what  string
	tests string
}{
	// Lost and revived.
	{"two requests set different keys, and one key is gone",
		"TestConcurrentChangesToDifferentKeysMerge Test64Increments"},
	{"a slow request that only read brings back a session that was logged out",
		"TestLogoutIsNotUndoneByARunningRequest"},
	{"a look whether the record exists guards the write", "TestBrokenStores"},
	{"a logout that races a rotation deletes nothing", "TestLogoutWinsOverAConcurrentRotation"},
	{"a session that was logged out comes back under a new ID", "TestLogoutIsNotUndoneByARunningRequest"},
	{"a session that was emptied is skipped instead of deleted", "TestEmptiedSessionIsDeletedUnlessChangedMeanwhile"},
	{"a logout deletes nothing, and says nothing", "TestLogoutWinsOverAConcurrentChange TestFailingStoreFailsClosed"},
	{"the logout of a session without idle limit deletes nothing", "TestLogoutWithoutIdleTimeout"},

	// The response.
	{"Flush or Hijack before the first Write: stored, and the cookie is not sent",
		"TestEveryDoorCommitsFirst TestHijack"},
	{"Early Hints freeze the session", "TestEarlyHintsDoNotCommit"},
	{"the commit fails, and the page follows the error", "TestFailedCommit"},
	{"the client goes away, and its change is lost", "TestClientGone"},
	{"the cookie is written before the record is, or the record after the body has begun",
		"TestFailedCommit TestEveryDoorCommitsFirst"},
	{"sendfile, HTTP/2, deadlines or ResponseController are lost behind a wrapper",
		"TestSendfile TestResponseController TestInsideOtherWrappers TestWriterWithoutExtras"},

	// Identity.
	{"an unknown or dead ID is adopted", "TestUnknownIsNotAdopted TestManagerOpen"},
	{"a rotation makes a new record and deletes the old one, and a concurrent request loses",
		"TestPeriodicRotation TestLogoutWinsOverAConcurrentRotation"},
	{"a grace period at login lets in whoever planted the cookie",
		"TestReplacedTokenReadsAsAnonymousWithinTheGrace TestAPlantedTokenEndsNobodysSession"},
	{"IDs are compared without regard to case", "TestPresentedCookies"},
	{"tokens are stored in the clear, or logged", "TestNoSecretIsPrinted TestAStolenTableOpensNothing"},
	{"a cookie is used as a path", "TestManagerOpen TestFileStoreNames TestPresentedCookies"},
	{"what cannot be decoded goes to a weaker decoder", "TestUndecodable TestUnreadableRecord"},
	{"the client's address is what a header says", "TestForwardedAddressIsNotBelieved"},

	// Cost.
	{"each read is a write and a Set-Cookie", "TestAccessIsWrittenOncePerResolution TestCacheHeaders"},
	{"each anonymous hit is a row", "TestLazy"},
	{"a sweep is one unbounded DELETE, or reads the whole store",
		"TestMemoryDeleteOld TestFileStoreSweepsByIndex TestBoltSweepsManyInBatches"},
	{"a touch churns an index", "TestBoltTouchLeavesDataAndIndexesAlone TestFileStoreTouchesInPlace"},

	// Stores.
	{"mapped memory is used after its transaction", "TestBoltConformance"},
	{"a file is truncated, then written in place", "TestFileStoreCrash TestFileStoreKill"},
	{"one unreadable record is an error for ever, or an outage a fresh session",
		"TestUnreadableRecord TestFailedLoadFailsClosed"},
	{"Setup drops data", "TestBrokenStores"},
	{"half a session is deleted, by an index written in another step", "TestFileStoreCrash TestBoltDamagedIndexes"},

	// Goroutines.
	{"a constructor starts a goroutine", "TestConstructorsStartNoGoroutine"},
	{"two requests share a map", "TestGoroutinesOfOneRequest Test64Increments"},
	{"a sweep dies at its first error", "TestCleanupOutlivesAFailingStore"},

	// Found since.
	{"what a request was itself issued counts as presented by a client", "TestASuccessorIsSeenWhenAClientComesWithIt"},
	{"a running request brings an expired session back", "TestARunningRequestDoesNotReviveAnExpiredSession"},
	{"a poll keeps a session alive for ever", "TestPassive"},
	{"to be remembered for 30 days ends after 30 idle minutes", "TestRemember"},
	{"a change that looks like nothing is not applied to what others did", "TestAChangeThatLooksLikeNothingIsReplayed"},
	{"two cookies of one name lock users out, or make thieves of them",
		"TestARetiredTokenBesideTheCurrentOneIsNoTheft TestALoginOrLogoutEndsAllThatWerePresented " +
			"TestPresentedCookies"},
	{"a cookie decided early and sent late replaces a newer one", "TestACookieThatAnEarlierCommitOwesIsCheckedAgain"},
	{"application code panics under a lock, and the request never ends",
		"TestTheApplicationsFunctionsMayDoWhatTheyLike TestALoadThatPanickedIsNoSession"},
	{"one manager's cookie opens another's session", "TestRealms TestAUserCannotNameARealm"},
	{"a value whose type changed is an error until the session ends", "TestUpdateOfAValueThatCannotBeRead"},
	{"a request that its outer timeout has answered is committed", "TestARequestWhoseTimeIsOverStoresNothing"},
	{"each change copies the session", "TestTheCostOfManyChanges"},
	{"get, then set: the update is lost", "TestNaiveIncrements TestLostUpdates"},
}

func TestPitfallsAreTested(t *testing.T) {
	have := testNames(t)
	for _, p := range pitfalls {
		for _, name := range strings.Fields(p.tests) {
			if !have[name] {
				t.Errorf("%s: there is no %s", p.what, name)
			}
		}
	}
}

// testNames returns the names of the functions in the test files of all directories.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	have := map[string]bool{}
	testsite.Must(t, filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range f.Decls {
			if d, ok := decl.(*ast.FuncDecl); ok {
				have[d.Name.Name] = true
			}
		}
		return nil
	}))
	return have
}

func TestLogoutWithoutIdleTimeout(t *testing.T) {
	store := session2.NewMemoryStore()
	st := testsite.NewSite(t, store, session2.Config{IdleTimeout: -1})
	b := st.Login("alice")
	st.Do(b, func(s *session2.Session) { s.Destroy() })
	if n := records(t, store); n != 0 {
		t.Errorf("%d records after the logout", n)
	}
}

func TestAStolenTableOpensNothing(t *testing.T) {
	store := session2.NewMemoryStore()
	st := testsite.NewSite(t, store, session2.Config{})
	b := st.Login("alice")
	_, verifier, _ := strings.Cut(b.Token(), ".")
	for rec := range store.Iter(t.Context()) {
		if strings.Contains(string(rec.Data), verifier) || strings.Contains(string(rec.Data), b.Token()) {
			t.Error("the record holds the token")
		}
		for i := 0; i+32 <= len(rec.Data); i++ { // whatever the thief finds in it
			guess := session2.EncodeToken(rec.ID, [32]byte(rec.Data[i:i+32]))
			if _, err := st.M.Open(t.Context(), guess); err == nil {
				t.Fatalf("the bytes from %d of the record open the session", i)
			}
		}
	}
}

func TestForwardedAddressIsNotBelieved(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("X-Forwarded-For", "10.0.0.1")
	r.Header.Set("Forwarded", "for=10.0.0.1")
	w := httptest.NewRecorder()
	st.Handler(func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) {
		if got := s.RemoteAddr(); got != r.RemoteAddr {
			t.Errorf("RemoteAddr() = %q, want %q", got, r.RemoteAddr)
		}
	}).ServeHTTP(w, r)
}

func TestConstructorsStartNoGoroutine(t *testing.T) {
	before := runtime.NumGoroutine()
	for _, url := range []string{"memory:", "file:%", "bolt:%", "gob:%"} {
		path := filepath.ToSlash(filepath.Join(t.TempDir(), "store"))
		store, err := session2.Open(t.Context(), strings.Replace(url, "%", path, 1))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := session2.NewManager(store, session2.Config{}); err != nil {
			t.Fatal(err)
		}
		defer closeStore(t, store)
	}
	for range 100 { // what an earlier test left may still be ending
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(time.Millisecond)
	}
	buf := make([]byte, 1<<16)
	t.Errorf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
}

func closeStore(t testing.TB, store session2.Store) {
	if c, ok := store.(interface{ Close() error }); ok {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}
