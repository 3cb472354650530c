module github.com/session2/session2/internal/torture

go 1.25.0

require (
	github.com/anishathalye/porcupine v1.3.1
	github.com/session2/session2 v0.0.0
	go.etcd.io/bbolt v1.5.0
	golang.org/x/sys v0.47.0
)

require (
	filippo.io/edwards25519 v1.2.0 // indirect
	github.com/go-sql-driver/mysql v1.10.1 // indirect
	github.com/lib/pq v1.12.3 // indirect
)

replace github.com/session2/session2 => ../..
