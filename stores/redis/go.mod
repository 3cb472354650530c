module github.com/session2/session2/stores/redis

go 1.25.0

require (
	github.com/redis/go-redis/v9 v9.22.0
	github.com/session2/session2 v0.0.0
)

require (
	filippo.io/edwards25519 v1.2.0 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/go-sql-driver/mysql v1.10.1 // indirect
	github.com/lib/pq v1.12.3 // indirect
	go.etcd.io/bbolt v1.5.0 // indirect
	go.uber.org/atomic v1.11.0 // indirect
	golang.org/x/sys v0.47.0 // indirect
)

replace github.com/session2/session2 => ../..
