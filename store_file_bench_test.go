package session2_test

import (
	"crypto/rand"
	"sync/atomic"
	"testing"
	"time"

	"github.com/session2/session2"
)

func randomFileRecord(user string) session2.Record {
	rec := fileRecord(0, user)
	rand.Read(rec.ID[:])
	rec.Data = make([]byte, 500)
	return rec
}

func BenchmarkFileStoreCreate(b *testing.B) {
	s := openFile(b, b.TempDir(), nil)
	for b.Loop() {
		mustSave(b, s, randomFileRecord(""), 0)
	}
}

func BenchmarkFileStoreCreateForUser(b *testing.B) {
	s := openFile(b, b.TempDir(), nil)
	for b.Loop() {
		mustSave(b, s, randomFileRecord("ada"), 0)
	}
}

func BenchmarkFileStoreReplace(b *testing.B) {
	s := openFile(b, b.TempDir(), nil)
	rec := randomFileRecord("ada")
	mustSave(b, s, rec, 0)
	for b.Loop() {
		rec.Version++
		mustSave(b, s, rec, rec.Version-1)
	}
}

func BenchmarkFileStoreReplaceParallel(b *testing.B) {
	s := openFile(b, b.TempDir(), nil)
	var n atomic.Int32
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		rec := randomFileRecord("ada")
		rec.ID[0] = byte(n.Add(1))
		mustSave(b, s, rec, 0)
		for pb.Next() {
			rec.Version++
			mustSave(b, s, rec, rec.Version-1)
		}
	})
}

func BenchmarkFileStoreLoad(b *testing.B) {
	s := openFile(b, b.TempDir(), nil)
	rec := randomFileRecord("ada")
	mustSave(b, s, rec, 0)
	for b.Loop() {
		if _, err := s.Load(b.Context(), rec.ID); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFileStoreTouch(b *testing.B) {
	s := openFile(b, b.TempDir(), nil)
	rec := randomFileRecord("ada")
	mustSave(b, s, rec, 0)
	at := rec.Accessed
	for b.Loop() {
		at = at.Add(time.Microsecond)
		if err := s.Touch(b.Context(), rec.ID, at, rec.Expires); err != nil {
			b.Fatal(err)
		}
	}
}
