//go:build !(linux || darwin || dragonfly || freebsd || illumos || netbsd || openbsd)

package lockfile

// Unflock does nothing: where there is no flock, closing a file gives up what
// locks it has.
func Unflock(File) error { return nil }
