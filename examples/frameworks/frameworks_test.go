package frameworks

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/gorilla/mux"
	"github.com/labstack/echo/v4"

	"github.com/session2/session2"
)

// A gin.Context is a context that knows nothing of the request's, unless the engine is
// told so.
func TestGinsContextIsNotTheRequests(t *testing.T) {
	for _, fallback := range []bool{false, true} {
		m := manager(t, session2.Config{})
		g := gin.New()
		g.ContextWithFallback = fallback
		g.GET("/", func(c *gin.Context) {
			c.String(200, "%v %v", session2.FromContext(c) != nil, session2.FromContext(c.Request.Context()) != nil)
		})
		open(t, m.Wrap(g)).want(200, fmt.Sprint(fallback, " true"), "GET", "/")
	}
}

// gin keeps the status back until the body begins, and the commit sees it all the same.
func TestAFailedRequestOfGinLeavesNoTrace(t *testing.T) {
	m := manager(t, session2.Config{})
	g := gin.New()
	g.Use(gin.CustomRecoveryWithWriter(io.Discard, func(c *gin.Context, _ any) { c.AbortWithStatus(500) }))
	g.GET("/status", func(c *gin.Context) { m.Session(c.Request).SetUser("alice"); c.Status(500) })
	g.GET("/panic", func(c *gin.Context) { m.Session(c.Request).SetUser("alice"); panic("oops") })
	b := open(t, m.Wrap(g))
	for _, path := range []string{"/status", "/panic"} {
		if res, _ := b.send("GET", path); res.StatusCode != 500 || len(res.Cookies()) > 0 {
			t.Errorf("%s: %d, cookies %v", path, res.StatusCode, res.Cookies())
		}
	}
}

// echo writes the page of a handler's error when all middleware has returned: a Wrap that
// is middleware has committed by then.
func TestAnErrorOfEcho(t *testing.T) {
	for name, c := range map[string]struct {
		app   func(m *session2.Manager, e *echo.Echo) http.Handler
		trace bool
	}{
		"m.Wrap(e)": {func(m *session2.Manager, e *echo.Echo) http.Handler { return m.Wrap(e) }, false},
		"WrapMiddleware": {func(m *session2.Manager, e *echo.Echo) http.Handler {
			e.Use(echo.WrapMiddleware(m.Wrap))
			return e
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			m := manager(t, session2.Config{})
			e := echo.New()
			e.Logger.SetOutput(io.Discard)
			e.GET("/", func(c echo.Context) error {
				m.Session(c.Request()).SetUser("alice")
				return errors.New("oops")
			})
			res, _ := open(t, c.app(m, e)).send("GET", "/")
			if trace := len(res.Cookies()) > 0; res.StatusCode != 500 || trace != c.trace {
				t.Errorf("%d, a trace is left: %v, want 500, %v", res.StatusCode, trace, c.trace)
			}
		})
	}
}

// gorilla/mux runs its middleware for the routes that it finds, and for no others.
func TestMuxUseIsForRoutesAlone(t *testing.T) {
	seen := func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, session2.FromContext(r.Context()) != nil, mux.Vars(r)["who"])
	}
	for _, whole := range []bool{false, true} {
		m := manager(t, session2.Config{})
		r := mux.NewRouter()
		r.HandleFunc("/found/{who}", seen)
		r.NotFoundHandler = http.HandlerFunc(seen)
		var h http.Handler = r
		if whole {
			h = m.Wrap(r)
		} else {
			r.Use(m.Wrap)
		}
		b := open(t, h)
		b.want(200, "truealice", "GET", "/found/alice")
		b.want(200, fmt.Sprint(whole), "GET", "/lost")
	}
}

// A route's pattern is there for a logger around it all.
func TestTheLoggerSeesThePattern(t *testing.T) {
	var log strings.Builder
	m := manager(t, session2.Config{})
	h := inOrder(m, netHTTP(m), slog.New(slog.NewTextHandler(&log, nil)))
	b := open(t, h)
	b.send("POST", "/count")
	b.Close() // the log is complete
	if !strings.Contains(log.String(), `pattern="POST /count" status=200`) {
		t.Errorf("the log: %s", log.String())
	}
}
