module github.com/session2/session2

go 1.25.0

require (
	go.etcd.io/bbolt v1.5.0
	golang.org/x/sys v0.47.0
)
