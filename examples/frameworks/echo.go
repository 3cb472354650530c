package frameworks

import (
	"net/http"
	"strconv"

	"github.com/labstack/echo/v4"

	"github.com/session2/session2"
)

func echoApp(m *session2.Manager) http.Handler {
	e := echo.New()
	e.POST("/login", func(c echo.Context) error {
		m.Session(c.Request()).SetUser("alice")
		return c.NoContent(http.StatusNoContent)
	})
	e.POST("/count", func(c echo.Context) error {
		n, err := visits.Commit(c.Request().Context(), m.Session(c.Request()), plusOne)
		if err != nil {
			return echo.NewHTTPError(http.StatusServiceUnavailable, "Please try again.")
		}
		return c.String(http.StatusOK, strconv.Itoa(n))
	})
	e.POST("/logout", func(c echo.Context) error {
		m.Session(c.Request()).Destroy()
		return c.NoContent(http.StatusNoContent)
	})
	return m.Wrap(e) // http.ListenAndServe(addr, m.Wrap(e)) in place of e.Start
}
