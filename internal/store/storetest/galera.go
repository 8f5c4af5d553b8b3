package storetest

import (
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// galeraLibrary is where Debian's galera-4 has it.
const galeraLibrary = "/usr/lib/galera/libgalera_smm.so"

// galeraNodes runs two nodes in a network of their own until its standard
// input ends, then removes their directory. The second takes the state of the first.
const galeraNodes = `dir=$1 install=$2 run=$3 library=$4 user=$5
trap '' INT TERM HUP
cd "$dir" && ip link set lo up || exit
as() { setpriv --reuid "$user" --regid "$user" --clear-groups "$@"; }
as mkdir n1 n2 n2/data &&
as "$install" --no-defaults --auth-root-authentication-method=normal --skip-test-db --datadir="$dir/n1/data" --tmpdir="$dir" || exit
node() {
	n=$1; shift
	(trap - INT TERM HUP; exec setpriv --reuid "$user" --regid "$user" --clear-groups "$run" --no-defaults --datadir="$dir/n$n/data" --tmpdir="$dir" \
		--socket="$dir/n$n/socket" --pid-file="$dir/n$n/pid" --bind-address=127.0.0.1 --port=330$n --max-connections=300 \
		--innodb-flush-log-at-trx-commit=0 --innodb-buffer-pool-size=64M --innodb-log-file-size=32M --innodb-autoinc-lock-mode=2 \
		--binlog-format=ROW --wsrep-on=ON --wsrep-provider="$library" --wsrep-node-name=n$n --wsrep-node-address=127.0.0.1:440$n \
		--wsrep-sst-method=rsync --wsrep-sst-receive-address=127.0.0.1:444$n \
		"--wsrep-provider-options=gmcast.listen_addr=tcp://127.0.0.1:440$n;ist.recv_addr=127.0.0.1:450$n;gcache.size=32M" "$@") </dev/null &
}
node 1 --wsrep-cluster-address=gcomm:// --wsrep-new-cluster
first=$!
for i in $(seq 600); do test -S n1/socket && break; sleep 0.1; done
node 2 --wsrep-cluster-address=gcomm://127.0.0.1:4401
second=$!
read -r _
kill -TERM $second $first 2>/dev/null
wait
rm -rf "$dir"`

// NewGalera starts a cluster of two MariaDB nodes and makes an empty database.
// It returns that database's [database] connection at each node. The test is
// skipped if the programs are not installed, or if it may not make a network.
func NewGalera(t testing.TB) [2]string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a network of their own for two nodes needs root")
	}
	install, err := exec.LookPath("mariadb-install-db")
	for _, name := range []string{"unshare", "setpriv", "rsync"} {
		if _, missing := exec.LookPath(name); err == nil {
			err = missing
		}
	}
	if err != nil || !executable("/usr/sbin/mariadbd") || !exists(galeraLibrary) {
		t.Skip("a Galera cluster needs mariadb-server, galera-4 and rsync")
	}
	account, err := user.Lookup("mysql")
	if err != nil {
		t.Skip(err)
	}
	uid, _ := strconv.Atoi(account.Uid) // a number on Unix
	dir, err := os.MkdirTemp("", "isospin-db")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, uid, -1); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command("unshare", "-n", "/bin/sh", "-c", galeraNodes, "nodes", dir, install, "/usr/sbin/mariadbd", galeraLibrary, account.Uid)
	cmd.Stdout, cmd.Stderr = log, log
	keep, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		os.RemoveAll(dir)
		t.Fatal(err)
	}
	t.Cleanup(func() {
		keep.Close()
		_ = cmd.Wait() // it was told to end
		os.RemoveAll(dir)
	})
	deadline := time.Now().Add(2 * time.Minute)
	var connections [2]string
	for i := range connections {
		socket := fmt.Sprintf("%s/n%d/socket", dir, i+1)
		connections[i] = "mysql+pymysql://root@localhost/isospin?charset=utf8mb4&unix_socket=" + socket
		db, err := sql.Open("mysql", "root@unix("+socket+")/")
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		for {
			var name, value string
			if err = db.QueryRow("SHOW STATUS LIKE 'wsrep_local_state_comment'").Scan(&name, &value); err == nil && value == "Synced" {
				break
			}
			if time.Now().After(deadline) {
				text, _ := os.ReadFile(log.Name())
				t.Fatalf("node %d is not synchronous (%s, %v)\n%s", i+1, value, err, text[max(0, len(text)-4000):])
			}
			time.Sleep(50 * time.Millisecond)
		}
		if i == 0 {
			if _, err := db.Exec("CREATE DATABASE isospin"); err != nil {
				t.Fatal(err)
			}
		}
	}
	return connections
}
