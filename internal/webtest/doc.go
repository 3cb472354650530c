// Package webtest tests Wrap with the routers and the middleware that people put
// around it and inside it. It is a module of its own, so that the library does
// not depend on them.
package webtest
