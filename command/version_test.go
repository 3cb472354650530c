package command

import (
	"runtime"
	"runtime/debug"
	"testing"
)

// TestVersion prints the version without a store, whatever SESSION2_STORE says.
func TestVersion(t *testing.T) {
	for _, args := range [][]string{{"version"}, {"-version"}, {"--version"}, {"version", "-version"}} {
		sessionEnv(t, []string{"SESSION2_STORE=nonsense"}, args...).want(0).says("session2 ").says(runtime.Version())
	}
	if v := session(t, "-json", "version").want(0).object(); v["version"] == "" || v["go"] != runtime.Version() {
		t.Errorf("got %v, want version and go", v)
	}
	session(t, "version", "x").want(exitUsage)
	session(t, "list", "-version", "memory:").want(exitUsage).says("takes no flag -version")
}

// TestVersionOf finds the library's version in its own program and in others.
func TestVersionOf(t *testing.T) {
	lib := func(version string) debug.Module { return debug.Module{Path: module, Version: version} }
	own, dep, local := lib("v1.2.3"), lib("v1.2.4"), lib("v1.2.5")
	program := debug.Module{Path: "example.com/x", Version: "v9.0.0"}
	local.Replace = &debug.Module{Path: "../.."}
	for _, c := range []struct {
		info debug.BuildInfo
		want string
	}{
		{debug.BuildInfo{Main: own}, "v1.2.3"},
		{debug.BuildInfo{Main: program, Deps: []*debug.Module{&dep}}, "v1.2.4"},
		{debug.BuildInfo{Main: program, Deps: []*debug.Module{&local}}, "(devel)"},
		{debug.BuildInfo{Main: lib("")}, "(devel)"},
	} {
		if got := versionOf(&c.info); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}
