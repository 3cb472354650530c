module github.com/session2/session2

go 1.25.0

require golang.org/x/sys v0.47.0
