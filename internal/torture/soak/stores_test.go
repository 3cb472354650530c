package soak

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testdb"
)

// store is what each store of the library is.
type store interface {
	session2.Store
	session2.IterStore
	session2.DeleteOldStore
}

// figure is one measure of a store's size, and how it is judged.
type figure struct {
	value float64
	rule  rule
	keeps bool // it stays what it was when the last record goes
}

// ground is where a store keeps its records.
type ground struct {
	url  string
	size func() ([]figure, error)
	// emptied returns what is left though no record is, when the store is closed.
	emptied func() (string, error)
}

// grounds are the stores that are tested.
var grounds = []struct {
	name string
	make func(t *testing.T) ground
}{
	{"memory", onMemory}, {"file", onFiles}, {"bolt", onBolt}, {"gob", onGob},
	{"mysql", onMySQL}, {"postgres", onPostgres},
}

func nothing() (string, error) { return "", nil }

func onMemory(*testing.T) ground {
	return ground{"memory:", func() ([]figure, error) { return nil, nil }, nothing}
}

func onFiles(t *testing.T) ground {
	dir := t.TempDir()
	return ground{"file:" + dir, func() ([]figure, error) {
		files, bytes := 0.0, 0.0
		err := walk(dir, func(_ string, info fs.FileInfo) {
			files++
			bytes += float64(info.Size())
		})
		return []figure{
			{files, rule{name: "files", rel: 0.2, abs: 32}, false},
			{bytes, rule{name: "bytes in files", rel: 0.3, abs: 64 << 10}, false},
		}, err
	}, func() (string, error) { return list(dir) }}
}

// list names the files of a directory, without the marks that a new one has as well.
func list(dir string) (text string, err error) {
	err = walk(dir, func(path string, info fs.FileInfo) {
		if info.Name() != "complete" {
			text += fmt.Sprintf("\n%s (%d bytes)", path, info.Size())
		}
	})
	return text, err
}

// walk calls f for each file but the locks, which are a fixed number of empty files.
func walk(dir string, f func(path string, info fs.FileInfo)) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil // a sweep goes on meanwhile
		}
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil && (filepath.Base(filepath.Dir(path)) != "locks" || info.Size() > 0) {
			f(path, info)
		}
		if os.IsNotExist(err) {
			return nil
		}
		return err
	})
}

// onBolt: bbolt doubles its file whenever it is full. It keeps its size, but has no entry
// left when it is empty.
func onBolt(t *testing.T) ground {
	path := filepath.Join(t.TempDir(), "b")
	return ground{"bolt:" + path, fileSize(path, 1, 0, 4<<20, true), func() (left string, err error) {
		db, err := bolt.Open(path, 0o600, nil)
		if err != nil {
			return "", err
		}
		defer db.Close()
		err = db.View(func(tx *bolt.Tx) error {
			return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
				if stats := b.Stats(); stats.KeyN > 1 || stats.KeyN == 1 && string(name) != "meta" {
					left += fmt.Sprintf("%d entries in bucket %s ", stats.KeyN, name)
				}
				return nil
			})
		})
		return left, err
	}}
}

// onGob: up to 1 MiB of the file may be dead.
func onGob(t *testing.T) ground {
	path := filepath.Join(t.TempDir(), "g")
	return ground{"gob:" + path, fileSize(path, 0.3, 512<<10, 4<<20, false), func() (string, error) {
		files, err := os.ReadDir(filepath.Dir(path))
		if err != nil || len(files) == 2 {
			return "", err
		}
		return fmt.Sprintf("%v, want the file and its lock", files), nil
	}}
}

// fileSize measures one file.
func fileSize(path string, rel, abs, most float64, keeps bool) func() ([]figure, error) {
	return func() ([]figure, error) {
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		return []figure{{float64(info.Size()), rule{name: "bytes of the file", rel: rel, abs: abs, most: most}, keeps}}, nil
	}
}

func onPostgres(t *testing.T) ground {
	url := testdb.Postgres(t)
	return ground{with(url, "table=soak"), tables(t, "postgres", url, `SELECT pg_total_relation_size('soak')`), nothing}
}

func onMySQL(t *testing.T) ground {
	dsn := testdb.MySQL(t)
	return ground{with(testdb.MySQLURL(t, dsn), "table=soak"), tables(t, "mysql", dsn,
		`SELECT data_length + index_length FROM information_schema.tables
		WHERE table_schema = DATABASE() AND table_name = 'soak'`), nothing}
}

// tables measures the store's tables. The space of deleted rows is the database's to use
// again, at a time of its own: their size is judged loosely.
func tables(t *testing.T, driver, dsn, size string) func() ([]figure, error) {
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	db.SetMaxOpenConns(1)
	if err := db.PingContext(context.Background()); err != nil {
		t.Fatal(err)
	}
	return func() (list []figure, err error) {
		list = []figure{
			{0, rule{name: "rows", rel: 0.2, abs: 16, most: maxRecords}, false},
			{0, rule{name: "rows of meta", most: 1}, false},
			{0, rule{name: "bytes of the table", rel: 1, abs: 8 << 20}, true},
		}
		for i, query := range []string{`SELECT count(*) FROM soak`, `SELECT count(*) FROM soak_meta`, size} {
			if err := db.QueryRow(query).Scan(&list[i].value); err != nil {
				return nil, err
			}
		}
		return list, nil
	}
}

// with adds an option to a URL.
func with(url, option string) string {
	if strings.HasSuffix(url, "?") {
		return url + option
	}
	if strings.Contains(url, "?") {
		return url + "&" + option
	}
	return url + "?" + option
}
