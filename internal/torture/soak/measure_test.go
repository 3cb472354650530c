package soak

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

// process is what this process has of what can leak.
type process struct {
	heap       float64 // bytes that are alive
	goroutines float64
	fds        float64 // open descriptors; 0 where /proc is not there
}

func measureProcess() process {
	runtime.GC()
	runtime.GC() // and what the finalizers, and the pools, have let go
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return process{float64(m.HeapAlloc), float64(runtime.NumGoroutine()), descriptors()}
}

func descriptors() float64 {
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return float64(len(names))
}

// descriptorList says what the open descriptors are.
func descriptorList() string {
	var b strings.Builder
	names, _ := os.ReadDir("/proc/self/fd")
	for _, n := range names {
		target, _ := os.Readlink("/proc/self/fd/" + n.Name())
		fmt.Fprintf(&b, "%s %s\n", n.Name(), target)
	}
	return b.String()
}

func allStacks() string {
	buf := make([]byte, 4<<20)
	return string(buf[:runtime.Stack(buf, true)])
}

// sample is one measurement, while no request is under way but streams.
type sample struct {
	process
	records float64
	size    []figure
	speed   spread
	rate    float64 // requests a second since the last one
}

// measure takes a sample.
func (r *run) measure(since time.Duration) (sample, error) {
	s := sample{process: measureProcess(), speed: r.speed.take()}
	s.rate = float64(s.speed.n) / since.Seconds()
	var err error
	if s.records, err = countRecords(r.store); err == nil {
		s.size, err = r.ground.size()
	}
	return s, err
}

func countRecords(s store) (n float64, err error) {
	for _, err := range s.Iter(context.Background()) {
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

func (s sample) String() string {
	text := fmt.Sprintf("%6.0f req/s  heap %6.0f KiB  %3.0f goroutines  %3.0f fds  %3.0f records  p50 %v  p99 %v",
		s.rate, s.heap/1024, s.goroutines, s.fds, s.records, s.speed.p50, s.speed.p99)
	for _, f := range s.size {
		text += fmt.Sprintf("  %.0f %s", f.value, f.rule.name)
	}
	return text
}

// series returns a value of each sample.
func series(samples []sample, value func(s sample) float64) (list []float64) {
	for _, s := range samples {
		list = append(list, value(s))
	}
	return list
}

// maxRecords bounds what a store holds: a client has a session that it uses and one that
// it stays away from, and may have lost a third. And a user's logins have a turn.
const maxRecords = 3*clients + 2*users

// verdict returns what is wrong with the samples.
func verdict(samples []sample) (wrong []string) {
	rules := []struct {
		rule
		value func(s sample) float64
	}{
		// Each of 16 connections comes to have a buffer for the largest record.
		{rule{name: "heap", rel: 0.05, abs: 256 << 10}, func(s sample) float64 { return s.heap }},
		// A client has a goroutine, and one for its stream, which may have a few more.
		{rule{name: "goroutines", rel: 0.1, abs: 10, most: 5*clients + 100}, func(s sample) float64 { return s.goroutines }},
		{rule{name: "descriptors", abs: 6, most: 100}, func(s sample) float64 { return s.fds }},
		{rule{name: "records", rel: 0.2, abs: 16, most: maxRecords}, func(s sample) float64 { return s.records }},
		// The machine may be busy with something else for most of the time.
		{rule{name: "latency in µs", rel: 2, abs: 5000, best: true}, func(s sample) float64 {
			return float64(s.speed.p50.Microseconds())
		}},
	}
	for _, r := range rules {
		if text := r.judge(series(samples, r.value)); text != "" {
			wrong = append(wrong, text)
		}
	}
	for i, f := range samples[0].size {
		if text := f.rule.judge(series(samples, func(s sample) float64 { return s.size[i].value })); text != "" {
			wrong = append(wrong, text)
		}
	}
	return wrong
}
