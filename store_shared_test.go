//go:build unix

package session2_test

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/testsite"
)

// sharedGroup is a group that no process of this test has unless it is told to.
const sharedGroup = 54321

// shareable opens the stores that a group may share.
var shareable = map[string]func(path string) (houseStore, error){
	"file": func(path string) (houseStore, error) {
		return session2.OpenFileStore(path, &session2.FileOptions{SharedGroup: true})
	},
	"bolt": func(path string) (houseStore, error) {
		return session2.OpenBoltStore(path, &session2.BoltOptions{SharedGroup: true})
	},
	"gob": func(path string) (houseStore, error) {
		return session2.OpenGobStore(path, &session2.GobOptions{SharedGroup: true})
	},
}

// inDir returns where a store is whose directory is dir.
func inDir(name, dir string) string {
	if name == "file" {
		return dir
	}
	return filepath.Join(dir, "s")
}

// A directory that its group may write is admitted by name only, and one that
// others may write never.
func TestStoresShareADirectory(t *testing.T) {
	for name, open := range shareable {
		t.Run(name, func(t *testing.T) {
			alone := fsys.OwnGroup(os.Getegid())
			for _, c := range []struct {
				mode            fs.FileMode
				private, shared bool
			}{{0o700, true, true}, {0o750, true, true}, {0o770, alone, true}, {0o777, false, false},
				{0o702, false, false}} {
				for with, admitted := range map[string]bool{"private": c.private, "shared": c.shared} {
					dir := t.TempDir()
					if err := os.Chmod(dir, c.mode); err != nil {
						t.Fatal(err)
					}
					try := placed[name]
					if with == "shared" {
						try = open
					}
					s, err := try(inDir(name, dir))
					if err == nil {
						s.Close()
					}
					if (err == nil) != admitted || err != nil && !strings.Contains(err.Error(), "others may write") {
						t.Errorf("%s, directory with mode %o: got %v, want it admitted: %v", with, c.mode, err,
							admitted)
					}
				}
			}
		})
	}
}

// A file that others may write to is refused as its directory is.
func TestStoresRefuseOpenFiles(t *testing.T) {
	for _, name := range []string{"bolt", "gob"} {
		path := filepath.Join(t.TempDir(), "s")
		s, err := placed[name](path)
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		modes := map[fs.FileMode][2]bool{0o660: {fsys.OwnGroup(os.Getegid()), true}, 0o606: {false, false}, 0o600: {true, true}}
		for mode, admitted := range modes {
			os.Chmod(path, mode)
			for i, open := range []func(string) (houseStore, error){placed[name], shareable[name]} {
				s, err := open(path)
				if err == nil {
					s.Close()
				}
				if (err == nil) != admitted[i] {
					t.Errorf("%s, file with mode %o, shared %v: got %v, want it admitted: %v", name, mode, i == 1, err,
						admitted[i])
				}
			}
		}
	}
}

// All that a store makes in a shared directory is open to the directory's group,
// whatever the umask and this process's own group; and to nobody else.
func TestStoresOpenToTheGroup(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	for name, open := range shareable {
		t.Run(name, func(t *testing.T) {
			dir := sharedDir(t, 0o770)
			fillShared(t, open, inDir(name, dir))
			filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
				if err != nil || path == dir {
					return err
				}
				info, err := e.Info()
				if err != nil {
					t.Fatal(err)
				}
				want := fs.FileMode(0o660)
				if e.IsDir() {
					want = fs.ModeDir | fs.ModeSetgid | 0o770
				}
				if info.Mode() != want {
					t.Errorf("%s has mode %v, want %v", path, info.Mode(), want)
				}
				if gid := info.Sys().(*syscall.Stat_t).Gid; os.Geteuid() == 0 && gid != sharedGroup {
					t.Errorf("%s has group %d, want the directory's, %d", path, gid, sharedGroup)
				}
				return nil
			})
		})
	}
}

// sharedDir makes a directory that its group may write, another one than this
// process's if the process may make it so, and that the group can reach.
func sharedDir(t *testing.T, mode fs.FileMode) string {
	t.Helper()
	parent := t.TempDir()
	dir := filepath.Join(parent, "shared")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, up := range []string{parent, filepath.Dir(parent)} {
		if err := os.Chmod(up, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, -1, sharedGroup); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, mode); err != nil {
		t.Fatal(err)
	}
	return dir
}

// fillShared makes a store create all kinds of files that it has.
func fillShared(t *testing.T, open func(string) (houseStore, error), path string) {
	t.Helper()
	s, err := open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for n := range byte(2) {
		if err := useShared(s, n); err != nil {
			t.Fatal(err)
		}
	}
}

// useShared changes all that is there and adds a record.
func useShared(s houseStore, n byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for i := range n {
		rec, err := s.Load(ctx, houseRecord(i, "").ID)
		if err != nil {
			return err
		}
		prev := rec.Version
		rec.Version, rec.User = prev+100, rec.User+"a"
		if err := s.Save(ctx, rec, prev); err != nil {
			return err
		}
		if err := s.Touch(ctx, rec.ID, rec.Accessed.Add(time.Minute), rec.Expires.Add(time.Minute)); err != nil {
			return err
		}
	}
	old := houseRecord(200+n, "alice")
	old.Expires = time.Now()
	if err := s.Save(ctx, old, 0); err != nil {
		return err
	}
	if got, err := s.DeleteOld(ctx, time.Hour); got != 1 || err != nil {
		return fmt.Errorf("DeleteOld: %d, %w", got, err)
	}
	return s.Save(ctx, houseRecord(n, "alice"), 0)
}

// sharedEnv makes the test binary, run again, use the store that it names.
const sharedEnv = "SESSION2_TEST_SHARED"

// Processes of two users who have only the group in common share one store, in a
// directory that belongs to a third, as a volume with an fsGroup does; and either
// of them may have come first to any of its parts.
func TestStoresAreSharedByUsers(t *testing.T) {
	t.Parallel()
	if use := os.Getenv(sharedEnv); use != "" {
		name, path, _ := strings.Cut(use, ":")
		s, err := shareable[name](path)
		if err == nil {
			err = useShared(s, byte(len(os.Getenv("N"))))
		}
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		return
	}
	if os.Geteuid() != 0 {
		t.Log("only root can be two users; not checked")
		return
	}
	for name := range shareable {
		for _, mode := range []fs.FileMode{0o770, 0o770 | fs.ModeSetgid} {
			dir := sharedDir(t, mode)
			binary := sharedBinary(t, filepath.Dir(dir))
			uses := []string{name + ":" + inDir(name, dir)}
			if name == "file" { // whose directory may still have to be made
				uses = []string{"file:" + filepath.Join(dir, "s"), "file:" + filepath.Join(dir, "of", "us"), uses[0]}
			}
			for _, use := range uses {
				isShared(t, binary, use)
			}
		}
	}
}

// isShared checks that two users of the group can use a store, and that a stranger cannot.
func isShared(t *testing.T, binary, use string) {
	t.Helper()
	for n := range 6 {
		asMember(t, binary, use, n, uint32(50001+n%2), sharedGroup)
	}
	stranger := exec.Command(binary, "-test.run=^TestStoresAreSharedByUsers$")
	stranger.Env = append(os.Environ(), sharedEnv+"="+use)
	stranger.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 50003, Gid: 50003}}
	if out, err := stranger.CombinedOutput(); err == nil {
		t.Errorf("%s: a stranger may use the store: %s", use, out)
	}
}

// A refused Open leaves no directory behind, which would be in the way of the next one.
func TestRefusedFileStoreLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	stores := map[string]func(string) (houseStore, error){"private": placed["file"], "shared": shareable["file"]}
	for name, open := range stores {
		if _, err := open(filepath.Join(dir, "s")); err == nil || !strings.Contains(err.Error(), "others may write") {
			t.Errorf("%s: got %v, want it refused: others may write to the directory that it is in", name, err)
		}
		if names, err := os.ReadDir(dir); len(names) != 0 || err != nil {
			t.Errorf("%s: it has left %v, %v", name, names, err)
		}
	}
}

// A directory that was made for the store, and is closed to the group, is opened to it: to
// the group that it was given, or to that of the directory that it is in.
func TestFileStoreOpensItsDirectory(t *testing.T) {
	const given = sharedGroup + 1
	for _, c := range []struct {
		mode       fs.FileMode
		group      int
		want       fs.FileMode
		wantsGroup uint32
	}{
		{0o700, -1, 0o770 | fs.ModeSetgid, sharedGroup},
		{0o700 | fs.ModeSetgid, -1, 0o770 | fs.ModeSetgid, sharedGroup},
		{0o755, given, 0o775 | fs.ModeSetgid, given},
		{0o700, given, 0o770 | fs.ModeSetgid, given},
		{0o750, -1, 0o770 | fs.ModeSetgid, 0},
		{0o770, given, 0o770, given},
	} {
		dir := filepath.Join(sharedDir(t, 0o775), "s")
		testsite.Must(t, os.Mkdir(dir, 0o700))
		if os.Geteuid() == 0 {
			testsite.Must(t, os.Chown(dir, -1, c.group))
		}
		testsite.Must(t, os.Chmod(dir, c.mode))
		fillShared(t, shareable["file"], dir)
		info, err := os.Lstat(dir)
		testsite.Must(t, err)
		if info.Mode() != c.want|fs.ModeDir {
			t.Errorf("mode %v: got %v, want %v", c.mode, info.Mode(), c.want|fs.ModeDir)
		}
		if gid := info.Sys().(*syscall.Stat_t).Gid; os.Geteuid() == 0 && gid != c.wantsGroup {
			t.Errorf("mode %v, group %d: got the group %d, want %d", c.mode, c.group, gid, c.wantsGroup)
		}
	}
}

// A store that was private is handed over by its owner. Until then it stays as it is.
func TestPrivateFileStoreIsHandedOver(t *testing.T) {
	dir := filepath.Join(sharedDir(t, 0o755), "s")
	fillShared(t, placed["file"], dir)
	for range 2 {
		if _, err := shareable["file"](dir); err == nil || !strings.Contains(err.Error(), "chmod -R g+rwX") {
			t.Fatalf("got %v, want it refused with what to do", err)
		}
	}
	s, err := placed["file"](dir)
	if err != nil {
		t.Fatalf("opened as before: %v", err)
	}
	testsite.Must(t, s.Close())
	if out, err := exec.Command("chmod", "-R", "g+rwX", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s, err = shareable["file"](dir)
	testsite.Must(t, err)
	defer s.Close()
	if rec, err := s.Load(t.Context(), houseRecord(0, "").ID); err != nil || rec.User != "alicea" {
		t.Errorf("its records: %q, %v", rec.User, err)
	}
}

// sharedBinary copies this test's binary to where all users can run it.
func sharedBinary(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "binary")
	// A process that another test starts meanwhile would have the file open for writing
	// for a moment, and the system runs no such file.
	syscall.ForkLock.RLock()
	err = os.WriteFile(name, b, 0o755)
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// asMember runs this test as a user with a supplementary group.
func asMember(t *testing.T, binary, use string, n int, uid, group uint32) {
	t.Helper()
	cmd := exec.Command(binary, "-test.run=^TestStoresAreSharedByUsers$")
	cmd.Env = append(os.Environ(), sharedEnv+"="+use, "N="+strings.Repeat("n", n))
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid,
		Groups: []uint32{group}}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s, user %d, step %d: %v\n%s", use, uid, n, err, out)
	}
}

// A URL says it by group=true.
func TestOpenSharesWithTheGroup(t *testing.T) {
	for name := range shareable {
		dir := sharedDir(t, 0o770)
		url := name + ":" + inDir(name, dir)
		if s, err := session2.Open(t.Context(), url); err == nil {
			s.(houseStore).Close()
			t.Errorf("%s opens what the group may write", url)
		}
		s, err := session2.Open(t.Context(), url+"?group=true")
		if err != nil {
			t.Errorf("%s?group=true: %v", url, err)
			continue
		}
		s.(houseStore).Close()
	}
}

// openFair opens one of the stores that processes of one machine share.
func openFair(t testing.TB, kind, dir string) session2.Store {
	t.Helper()
	if kind == "file" {
		return openFile(t, filepath.Join(dir, "sessions"), nil)
	}
	return openGob(t, filepath.Join(dir, "sessions"))
}

// busyRecord is what the busy process saves, and otherRecord what the one saves
// that waits. In a FileStore they have the same lock.
func busyRecord() session2.Record { return houseRecord(1, "") }

func otherRecord() session2.Record {
	rec := houseRecord(1, "")
	rec.ID[8] = 2
	return rec
}

// startBusy starts the test again in a process that saves for ever.
func startBusy(t testing.TB, test, kind, dir string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^"+test+"$")
	cmd.Env = append(os.Environ(), "SESSION2_TEST_BUSY="+kind, "SESSION2_TEST_BUSY_DIR="+dir)
	out, err := cmd.StdoutPipe()
	testsite.Must(t, err)
	testsite.Must(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "busy\n" {
		t.Fatalf("the busy process says %q", line)
	}
}

// beBusy does not return in a process that startBusy started: it saves one
// record until it is killed, and counts in the version.
func beBusy(t testing.TB) {
	kind := os.Getenv("SESSION2_TEST_BUSY")
	if kind == "" {
		return
	}
	s := openFair(t, kind, os.Getenv("SESSION2_TEST_BUSY_DIR"))
	rec := busyRecord()
	for rec.Version = 1; ; rec.Version++ {
		testsite.Must(t, s.Save(t.Context(), rec, rec.Version-1))
		if rec.Version == 1 {
			os.Stdout.WriteString("busy\n")
		}
	}
}

// savesBesideBusy saves n times beside a busy process, and returns, sorted, how
// many saves of the busy process fell into each of those, and how long each took.
func savesBesideBusy(t testing.TB, s session2.Store, n int) (turns []int, took []time.Duration) {
	t.Helper()
	count := func() session2.Version {
		rec, err := s.Load(t.Context(), busyRecord().ID)
		testsite.Must(t, err)
		return rec.Version
	}
	rec := otherRecord()
	for rec.Version = 1; len(turns) < n; rec.Version++ {
		for busy := count() + 3; count() < busy; { // until the other one is at it again
			time.Sleep(time.Millisecond)
		}
		before, start := count(), time.Now()
		testsite.Must(t, s.Save(t.Context(), rec, rec.Version-1))
		took = append(took, time.Since(start))
		turns = append(turns, int(count()-before))
	}
	slices.Sort(turns)
	slices.Sort(took)
	return turns, took
}

// Beside a process that saves all the time, another one's save waits for its
// turn and no longer. The busy process's saves are counted from before the save
// to after it: so one is under way at the beginning, and another at the end.
func TestSavesBesideBusyProcess(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux wakes those that wait for a lock in their turn")
	}
	beBusy(t)
	for _, kind := range []string{"file", "gob"} {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			s := openFair(t, kind, dir)
			startBusy(t, "TestSavesBesideBusyProcess", kind, dir)
			turns, _ := savesBesideBusy(t, s, 51)
			if median := turns[len(turns)/2]; median > 4 {
				t.Errorf("while one save waited, the busy process had %d in the median, want 4 at most; all: %v",
					median, turns)
			}
		})
	}
}

// BenchmarkSaveBesideBusyProcess measures how long a save waits.
func BenchmarkSaveBesideBusyProcess(b *testing.B) {
	if runtime.GOOS != "linux" {
		b.Skip("only Linux wakes those that wait for a lock in their turn")
	}
	for _, kind := range []string{"file", "gob"} {
		b.Run(kind, func(b *testing.B) {
			dir := b.TempDir()
			s := openFair(b, kind, dir)
			startBusy(b, "TestSavesBesideBusyProcess", kind, dir)
			b.ResetTimer()
			turns, took := savesBesideBusy(b, s, b.N)
			b.ReportMetric(float64(turns[len(turns)/2]), "turns-median")
			b.ReportMetric(float64(turns[len(turns)-1]), "turns-max")
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-median")
			b.ReportMetric(float64(took[len(took)-1].Microseconds())/1000, "ms-max")
		})
	}
}
