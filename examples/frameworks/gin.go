package frameworks

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/session2/session2"
)

func ginApp(m *session2.Manager) http.Handler {
	g := gin.New()
	g.Use(gin.Recovery())
	g.POST("/login", func(c *gin.Context) { m.Session(c.Request).SetUser("alice") })
	g.POST("/count", func(c *gin.Context) {
		n, err := visits.Commit(c.Request.Context(), m.Session(c.Request), plusOne)
		if err != nil {
			c.String(http.StatusServiceUnavailable, "Please try again.")
			return
		}
		c.String(http.StatusOK, "%d", n)
	})
	g.POST("/logout", func(c *gin.Context) { m.Session(c.Request).Destroy() })
	return m.Wrap(g) // the whole engine: http.ListenAndServe(addr, m.Wrap(g)) in place of g.Run
}
