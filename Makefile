# make test runs everything that must hold before a change lands. It installs
# what is missing where it can, and otherwise says what to install.

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.1
FUZZTIME ?= 10000x

# For how many seconds make torture explores each scenario, runs each fuzz target, and
# uses each store at full load.
TORTURE_SECONDS ?= 60
FUZZSECONDS ?= 600
SOAK_SECONDS ?= 600

# Modules of their own, for what the library must not depend on. Those in PLAIN run without
# the race detector, for which others' packages would be built a second time, SQLite as Go
# code for minutes: what they add to session2 is hardly concurrent, and make torture races
# them, too.
RACED = internal/pgxtest internal/scstest internal/torture stores/redis
PLAIN = examples/frameworks internal/webtest internal/bench stores/sqlite
MODULES = $(RACED) $(PLAIN)

# lint vets everything, and so no test need be vetted first.
TEST = go test -vet=off -shuffle=on -parallel 4 -timeout 30m

# A database server that cannot be had is a failure, not a skipped test.
export SESSION2_REQUIRE_DB = 1

# The race detector makes each process sleep for a second before it ends, and
# the tests run hundreds of processes.
export GORACE = atexit_sleep_ms=0

.PHONY: test check tools format lint unit modules test-cluster fuzz bench bench-once cover torture

# Most tests wait for a disk or a server, and the linters for a processor: side by
# side they take little longer than the longest of them.
test: tools
	@$(MAKE) --no-print-directory -j3 lint unit modules test-cluster fuzz bench-once

# make check is the inner loop: the format, vet, and the tests that need no server.
check: format
	go vet ./...
	SESSION2_REQUIRE_DB= .ci/ram go test -short ./...

tools:
	@.ci/tools

format:
	@files=$$(gofmt -l .); test -z "$$files" || { echo "gofmt -w $$files"; exit 1; }

lint: format
	go mod tidy -diff
	go vet ./... && go vet -tags cluster ./internal/sqltest
	@for os in windows darwin freebsd; do echo "GOOS=$$os go vet ./..."; \
		GOOS=$$os CGO_ENABLED=0 go vet -gcflags='all=-N -l' ./... || exit 1; done # of what is built, only types matter
	go run $(STATICCHECK) ./... && go run $(STATICCHECK) -tags cluster ./internal/sqltest
	@for dir in $(MODULES); do echo "$$dir"; (cd $$dir && go mod tidy -diff && go vet ./... && go run $(STATICCHECK) ./...) || exit 1; done

unit:
	.ci/ram $(TEST) -race ./...

modules:
	@for dir in $(RACED); do (cd $$dir && $(TEST) -race ./...) || exit 1; done
	@for dir in $(PLAIN); do (cd $$dir && $(TEST) ./...) || exit 1; done

# Clusters of database servers, which die in the middle of load.
test-cluster: tools
	$(TEST) -race -tags cluster -run Cluster ./internal/sqltest

# Each fuzz target for a short while: the seeds and a little more. A number of
# runs, for with a time `go test` can fail as the time runs out.
fuzz:
	@.ci/ram .ci/fuzz $(FUZZTIME)

# Each benchmark once, so that none can rot.
bench-once:
	.ci/ram $(TEST) -run='^$$' -bench=. -benchtime=1x ./...
	cd internal/bench && ../../.ci/ram $(TEST) -run '^TestKept$$' .

# session2 beside other libraries and beside the same work by hand. It rewrites
# docs/BENCHMARKS.md, and takes more than an hour on a machine that does nothing else. A quick
# look: make bench BENCHFLAGS='-stores memory,bolt -work W1,W2 -rounds 3 -loopback='
BENCHFLAGS ?= -media ram,disk -rounds 3 -seconds 0.2 -inside-seconds 1 -growth 10000,100000,1000000 -giant 10000000 \
	-sweep 1000000 -write ../../docs
bench: tools
	cd internal/bench && go run . $(BENCHFLAGS)

# What make test does for a second, for as long as there is time; and the faults that
# are planted in the core, each of which must be found within a minute.
torture: tools
	cd internal/torture && TORTURE_SECONDS=$(TORTURE_SECONDS) TORTURE_PLANT=1 SOAK_SECONDS=$(SOAK_SECONDS) \
		go test -race -v -count=1 -timeout $$((100 * $(TORTURE_SECONDS) + 7 * $(SOAK_SECONDS) + 10800))s ./...
	.ci/ram .ci/fuzz $(FUZZSECONDS)s
	@for dir in $(PLAIN); do (cd $$dir && $(TEST) -race ./...) || exit 1; done

cover:
	go test -coverprofile=cover.out . && go tool cover -func=cover.out | tail -n 1
