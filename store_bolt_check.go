package session2

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"

	bolt "go.etcd.io/bbolt"

	"github.com/session2/session2/internal/fsys"
)

// checkBolt goes through all pages of a database file, without a look at what
// the values say, and fails where bbolt would panic over one of them. It does
// so in this goroutine, where a panic and a fault can be caught.
func checkBolt(fsy fsys.FS, path string, o BoltOptions) error {
	if info, err := os.Stat(path); err != nil || info.Size() == 0 {
		return nil // new; or else opening it for writing will say what is wrong
	}
	db, file, err := openBoltWith(fsy, path, &bolt.Options{Timeout: o.Timeout, ReadOnly: true})
	if err != nil {
		return err
	}
	damage := guardBolt(func() {
		err = db.View(func(tx *bolt.Tx) error {
			return tx.ForEach(func(name []byte, b *bolt.Bucket) error { return checkBoltOrder(name, b) })
		})
	})
	return errors.Join(cmp.Or(damage, err), letGoOfBolt(db, file, nil)) // a reader's panic locks nothing
}

// checkBoltOrder wants the keys of a bucket in ascending order, as they are not
// where pages form a ring or lead to a wrong one.
func checkBoltOrder(name []byte, b *bolt.Bucket) error {
	var last []byte
	c := b.Cursor()
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		if last != nil && bytes.Compare(k, last) <= 0 {
			return fmt.Errorf("bolt database damaged: %w in bucket %q", errBoltOrder, name)
		}
		last = k
	}
	return nil
}

var errBoltOrder = errors.New("keys out of order")
