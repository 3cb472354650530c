package sqltest

import (
	"errors"
	"strings"
	"testing"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testdb"
	"github.com/session2/session2/internal/testsite"
)

// TestMySQLCharacterSets stores bytes that some character sets cannot hold, and
// others let out of their quotes, under settings that translate them.
func TestMySQLCharacterSets(t *testing.T) {
	gbk := testdb.NewMySQL(t, "character-set-server = gbk", "skip-character-set-client-handshake").DSN()
	for _, set := range []string{
		"", "charset=gbk", "set.character_set_client=gbk", "set.character_set_client=big5",
		"set.character_set_client=latin1", "set.character_set_connection=latin1",
		"set.collation_connection=ascii_bin", "set.sql_mode=EMPTY_STRING_IS_NULL",
		"set.sql_mode=ORACLE", "set.sql_mode=NO_BACKSLASH_ESCAPES",
	} {
		for _, prepare := range []string{"", "&noprepare=true"} {
			for server, dsn := range map[string]string{"plain": testdb.MySQL(t), "gbk": gbk} {
				t.Run(server+","+set+prepare, func(t *testing.T) {
					keepsBytes(t, openURL(t, sqlURL(t, "mysql", dsn), "&table="+sqlTable(t.TempDir())+prepare+"&"+set))
				})
			}
		}
	}
	t.Run("gbk, a pool of the caller's", func(t *testing.T) {
		opts := session2.SQLOptions{NoPrepare: true, Table: sqlTable(t.TempDir())}
		store := openMySQL(t, gbk+"?interpolateParams=true", opts)
		keepsBytes(t, store)
	})
}

// keepsBytes does with bytes as an attacker would choose them what must have no
// effect on another's records.
func keepsBytes(t *testing.T, store sqlStore) {
	t.Helper()
	ctx := t.Context()
	victim := sqlRecord(0x80)
	victim.ID[1], victim.User, victim.Data = 0xff, "bob\x81", []byte("'\x81\x82\\\x00")
	testsite.Must(t, store.Save(ctx, victim, 0))
	nobody := sqlRecord(7)
	nobody.User, nobody.Data = "", nil
	testsite.Must(t, store.Save(ctx, nobody, 0))

	for _, like := range []string{"\xbf' OR 1=1 -- xxx", "\x90\xfd", "?\xff"} {
		evil := sqlRecord(1)
		copy(evil.ID[:], like)
		if _, err := store.Load(ctx, evil.ID); !errors.Is(err, session2.ErrNotFound) {
			t.Errorf("ID %q: got %v, want %v", like, err, session2.ErrNotFound)
		}
		testsite.Must(t, store.Delete(ctx, evil.ID))
		if n, err := store.DeleteUser(ctx, strings.TrimRight(like, "x")); n != 0 || err != nil {
			t.Errorf("user %q: got %d deleted, %v, want none", like, n, err)
		}
	}
	testsite.Must(t, store.Save(ctx, thief(2), 0))
	if n, err := store.DeleteUser(ctx, thief(2).User); n != 1 || err != nil {
		t.Errorf("got %d deleted, %v, want 1", n, err)
	}
	for _, want := range []session2.Record{victim, nobody} {
		got, err := store.Load(ctx, want.ID)
		if err != nil || got.User != want.User || string(got.Data) != string(want.Data) || got.Version != want.Version {
			t.Errorf("got %q, %q, %v, want %q, %q", got.User, got.Data, err, want.User, want.Data)
		}
	}
	if n, err := store.DeleteUser(ctx, victim.User); n != 1 || err != nil {
		t.Errorf("got %d deleted, %v, want 1", n, err)
	}
}

// thief is a record whose user's name would be a statement.
func thief(b byte) session2.Record {
	rec := sqlRecord(b)
	rec.User = "\xbf', data='stolen' WHERE id<>'' -- "
	return rec
}
