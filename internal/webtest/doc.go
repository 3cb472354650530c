// Package webtest tests Wrap with the routers and the middleware that people put
// around it and inside it, and presses the demo's buttons in a headless Chromium.
// It is a module of its own, so that the library does not depend on them.
package webtest
