# make run      a cloud on this machine
# make test     everything that is checked
# make bench    the product's figures, with those of its peer beside them
# make bench-scale  a thousand hosts on one server
# make chaos    servers, hosts and clients while things break (SEED=, RUNS=, DATABASES=)
# make test-databases, bench-databases   the same on PostgreSQL and MariaDB
# make test-migrations  upgrades of large databases, of each kind (SIZE=)
# make interop  OpenStack's own API tests (tempest) with the real Keystone
# make interop-clients  every command of the openstack client, every package of gophercloud, listeners of oslo.messaging on RabbitMQ
# make deb      a Debian package; make test-deb installs, upgrades and purges it
# make test-systemd  runs its units under a systemd in a Debian of its own

export PATH := $(PATH):/usr/local/go/bin:/usr/sbin:/sbin

version := $(shell git describe --tags --always --dirty 2>/dev/null)
ldflags := -s -w $(if $(version),-X isospin/internal/telemetry.stamp=$(version))

.PHONY: build run test test-databases test-migrations bench-databases interop interop-clients chaos bench bench-scale microbench verify fmt setup deb test-deb test-systemd clean

# The stamp comes from here, so that a build needs no repository.
build:
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '$(ldflags)' -o bin/isospin ./cmd/isospin

run: setup build
	bin/isospin up

# Tests of what packaging/peers.sh installs are skipped without it.
test: setup verify
	@packaging/peers.sh -n || true
	go test ./...

bench: setup build
	go run ./test/bench -executable bin/isospin

bench-scale: setup build
	go run ./test/scale -executable bin/isospin

DATABASES ?= postgresql,mariadb

# A run is repeated with its SEED; logs of runs with findings are in CHAOS_LOGS.
chaos: setup build
	CGO_ENABLED=0 go run -trimpath ./test/chaos -executable bin/isospin -runs $(or $(RUNS),3) -database $(DATABASES) \
		$(if $(SEED),-seed $(SEED)) -keep $(or $(CHAOS_LOGS),/tmp/isospin-chaos-logs)

# On PostgreSQL and MariaDB whatever uses the store. Each test process starts a server of its own.
# A line for each package, and what failed; a package has LIMIT (15m).
databases := postgresql mariadb
on_databases := ./internal/store/... ./internal/feed ./internal/core/... ./internal/ext/... ./test/api ./test/access ./internal/server ./internal/notify/... ./internal/watch ./internal/lease

test-databases: setup
	@failed=0; for kind in $(databases); do test/databases.sh $$kind $(on_databases) || failed=1; done; exit $$failed

# With SIZE ports; make test does it with 2,000. What is killed, refused and lost is in test/migration.
test-migrations: setup build
	set -e; for kind in sqlite $(databases); do ISOSPIN_TEST_DATABASE=$$kind \
		go test -count=1 -v -timeout 1h ./test/migration -ports $(or $(SIZE),100000) -executable $(CURDIR)/bin/isospin; done

# SIZE is how many ports there are for the figures of a large store.
bench-databases: setup build
	set -e; for kind in $(databases); do go run ./test/bench -executable bin/isospin -only api -database $$kind; \
		go run ./test/bench -executable bin/isospin -only api -database $$kind -size $(or $(SIZE),200000); done

microbench: setup
	go test -run '^$$' -bench . -benchmem ./...

# REGEX chooses tests; test/interop/tempest/run.sh tells what else can be chosen.
interop: setup build
	test/interop/tempest/run.sh $(if $(REGEX),'$(REGEX)')

# Installs the clients and the broker it needs; make test runs these too where they are.
interop-clients: setup
	packaging/peers.sh test/interop/openstackclient test/interop/rabbitmq
	go test -count=1 -v ./test/interop/openstackclient ./test/interop/gophercloud ./test/interop/rabbitmq

deb: build
	packaging/deb/build.sh

# Needs root and debootstrap, and says so when it cannot be run.
test-deb:
	packaging/deb/test.sh

# As above.
test-systemd:
	packaging/deb/systemd.sh

# Form, common mistakes, and which package may import which.
verify: bin/staticcheck
	@bad=$$(gofmt -l $$(go list -f '{{.Dir}}' ./...)) && if [ -n "$$bad" ]; then \
		echo "not formatted, run make fmt:"; echo "$$bad"; exit 1; fi
	go vet ./...
	bin/staticcheck ./...
	go test ./test/architecture

# A module of its own keeps its dependencies out of ours.
bin/staticcheck: tools/go.mod tools/go.sum
	go -C tools build -buildvcs=false -o ../$@ honnef.co/go/tools/cmd/staticcheck
	@touch $@

fmt:
	gofmt -w $$(go list -f '{{.Dir}}' ./...)

setup:
	@packaging/setup.sh

clean:
	rm -rf bin
