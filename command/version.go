package command

import (
	"context"
	"runtime"
	"runtime/debug"
)

// module is the library's.
const module = "github.com/session2/session2"

// version prints which release of the library this is.
func version(_ context.Context, j *job) error {
	v := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		v = versionOf(info)
	}
	f := fields{"version": v, "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH}
	return j.out.result(f, "session2 %s %s %s/%s", v, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// versionOf returns the library's version, in whatever program it is.
func versionOf(info *debug.BuildInfo) string {
	for _, m := range append([]*debug.Module{&info.Main}, info.Deps...) {
		if m.Path != module {
			continue
		}
		if m.Replace != nil {
			m = m.Replace
		}
		if m.Version != "" {
			return m.Version
		}
	}
	return "(devel)" // as the go command says of what was built from a directory
}
