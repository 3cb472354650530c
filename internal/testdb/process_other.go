//go:build !linux

package testdb

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"time"
)

// process is not there: only on Linux are servers started. Elsewhere the tests
// use those that the environment names.
type process struct{}

var errSystem = fmt.Errorf("a server of its own is, on %s, %w", runtime.GOOS, errMissing)

func spawn(*exec.Cmd, os.Signal) (*process, error) { return nil, errSystem }

func (p *process) ended() bool              { return true }
func (p *process) stop(time.Duration) error { return errSystem }
func (p *process) kill() error              { return errSystem }
func (p *process) pause() error             { return errSystem }
func (p *process) resume() error            { return errSystem }

func alive(int) bool { return true }

func freeMemory(key, id int) {}

func demote(*exec.Cmd) {}

func give(string) error { return nil }
