package testdb

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a server's first process. Its children are found through /proc.
type process struct {
	cmd      *exec.Cmd
	shutdown os.Signal
	done     chan struct{} // closed when it has been waited for
}

// spawn starts a process that dies with this one.
func spawn(cmd *exec.Cmd, shutdown os.Signal) (*process, error) {
	demote(cmd)
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	p := &process{cmd: cmd, shutdown: shutdown, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // the death signal comes when the thread that forked ends
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
			close(p.done)
		}
	}()
	return p, <-started
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// stop asks the process to end, and waits.
func (p *process) stop(timeout time.Duration) error {
	if err := p.cmd.Process.Signal(p.shutdown); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(timeout):
		return errors.Join(fmt.Errorf("process %d does not end", p.cmd.Process.Pid), p.kill())
	}
}

// kill kills the process and its children, and waits until they are gone: a
// server does not start on data that a child of its predecessor still uses.
func (p *process) kill() error {
	if p.ended() {
		return nil
	}
	if err := p.signal(syscall.SIGSTOP); err != nil { // so that it makes no more children
		return err
	}
	pids := p.family()
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
			return err
		}
	}
	<-p.done
	for _, name := range []string{"faketime_shm_%d", "sem.faketime_sem_%d"} { // libfaketime's, if it had that
		os.Remove(filepath.Join("/dev/shm", fmt.Sprintf(name, pids[0])))
	}
	return until(stopTimeout, func() (bool, error) {
		for _, pid := range pids {
			if alive(pid) {
				return false, fmt.Errorf("process %d does not end", pid)
			}
		}
		return true, nil
	})
}

func (p *process) pause() error {
	return errors.Join(p.signal(syscall.SIGSTOP), p.each(syscall.SIGSTOP))
}

func (p *process) resume() error { return p.each(syscall.SIGCONT) }

func (p *process) signal(sig syscall.Signal) error { return p.cmd.Process.Signal(sig) }

func (p *process) each(sig syscall.Signal) error {
	for _, pid := range p.family() {
		if err := syscall.Kill(pid, sig); err != nil && err != syscall.ESRCH {
			return err
		}
	}
	return nil
}

// family returns the process and its descendants: a Galera node's state comes
// by a script that starts rsync.
func (p *process) family() []int {
	pids := []int{p.cmd.Process.Pid}
	for i := 0; i < len(pids); i++ {
		pids = append(pids, children(pids[i])...)
	}
	return pids
}

func children(parent int) (pids []int) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", parent))
	for _, list := range lists {
		b, _ := os.ReadFile(list)
		for _, field := range bytes.Fields(b) {
			if pid, err := strconv.Atoi(string(field)); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// freeMemory removes a piece of System V shared memory that no process uses.
func freeMemory(key, id int) {
	var d unix.SysvShmDesc
	_, err := unix.SysvShmCtl(id, unix.IPC_STAT, &d)
	if err == nil && int(d.Perm.Key) == key && d.Nattch == 0 {
		unix.SysvShmCtl(id, unix.IPC_RMID, nil)
	}
}

// alive reports whether a process is there, and no zombie that nobody has
// waited for.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := bytes.Cut(b, []byte(") "))
	return !bytes.HasPrefix(rest, []byte("Z"))
}

// demote runs a command as nobody if this process is root, as servers insist.
func demote(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if uid, gid, ok := nobody(); ok {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: gid}
	}
}

// give gives a file to the user that servers run as.
func give(path string) error {
	if uid, gid, ok := nobody(); ok {
		return os.Chown(path, int(uid), int(gid))
	}
	return nil
}

func nobody() (uid, gid uint32, ok bool) {
	if os.Getuid() != 0 {
		return 0, 0, false
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		return 0, 0, false
	}
	id, err1 := strconv.ParseUint(u.Uid, 10, 32)
	group, err2 := strconv.ParseUint(u.Gid, 10, 32)
	return uint32(id), uint32(group), err1 == nil && err2 == nil
}
