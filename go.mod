module github.com/session2/session2

go 1.26.0

require golang.org/x/sys v0.49.0 // indirect
