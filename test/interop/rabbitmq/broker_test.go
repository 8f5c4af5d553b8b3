package rabbitmq

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	rabbitmqServer = "/usr/lib/rabbitmq/bin/rabbitmq-server"
	python         = "/usr/bin/python3"
	oslo           = "/usr/lib/python3/dist-packages/oslo_messaging"

	name     = "neutron"
	password = "s3cr@t:%"
	// encoded is the password as URLs have it.
	encoded = "s3cr%40t%3A%25"
)

// supervisor runs a broker in a directory, with a port mapper of its own, as it
// is told to. When its standard input ends so do they, however we ended.
const supervisor = `trap '' INT TERM HUP
cd "$1" || exit
epmd -address 127.0.0.1 -port "$ERL_EPMD_PORT" </dev/null &
mapper=$!
broker=
while read -r word; do
	case $word in
	start) (exec "$2") </dev/null >>output 2>&1 & broker=$! ;;
	kill) kill -KILL $broker; wait $broker 2>/dev/null ;;
	pause) kill -STOP $broker ;;
	resume) kill -CONT $broker ;;
	esac
	echo "$word"
done
test -z "$broker" || kill -KILL $broker
kill -KILL $mapper
wait
rm -rf "$1"`

// broker is a RabbitMQ on loopback.
type broker struct {
	dir         string
	plain, tls  int // ports
	commands    io.WriteCloser
	answers     *bufio.Reader
	certificate string // directory of ca.pem, client.pem, client.key
}

func startBroker(t *testing.T) *broker {
	for _, file := range []string{rabbitmqServer, "/usr/bin/epmd", "/usr/bin/setpriv", oslo} {
		if _, err := os.Stat(file); err != nil {
			t.Skipf("skipped: needs rabbitmq-server and python3-oslo.messaging: %v", err)
		}
	}
	dir, err := os.MkdirTemp("", "isospin-rabbitmq")
	if err != nil {
		t.Fatal(err)
	}
	b := &broker{dir: dir, certificate: t.TempDir()}
	ports := freePorts(t, 4)
	b.plain, b.tls = ports[0], ports[1]
	certificates(t, b.certificate)
	for _, name := range []string{"ca.pem", "server.pem", "server.key"} {
		raw, err := os.ReadFile(filepath.Join(b.certificate, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), raw, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	text := fmt.Sprintf(`listeners.tcp.1 = 127.0.0.1:%d
listeners.ssl.1 = 127.0.0.1:%d
ssl_options.cacertfile = %[3]s/ca.pem
ssl_options.certfile = %[3]s/server.pem
ssl_options.keyfile = %[3]s/server.key
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
default_user = %s
default_pass = %s
default_vhost = a/cloud
log.file = false
log.console = true
`, b.plain, b.tls, dir, name, password)
	if err := os.WriteFile(filepath.Join(dir, "rabbitmq.conf"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"/bin/sh", "-c", supervisor, "supervisor", dir, rabbitmqServer}
	if os.Geteuid() == 0 {
		account, err := user.Lookup("rabbitmq")
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := strconv.Atoi(account.Uid) // numbers on Unix
		gid, _ := strconv.Atoi(account.Gid)
		err = filepath.Walk(dir, func(path string, _ os.FileInfo, err error) error {
			if err == nil {
				err = os.Chown(path, uid, gid)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		args = append([]string{"setpriv", "--reuid", account.Uid, "--regid", account.Gid, "--clear-groups"}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = []string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + dir, "LC_ALL=C.UTF-8", "ERL_EPMD_ADDRESS=127.0.0.1", fmt.Sprintf("ERL_EPMD_PORT=%d", ports[2]),
		fmt.Sprintf("RABBITMQ_NODENAME=isospin%d@localhost", b.plain), fmt.Sprintf("RABBITMQ_DIST_PORT=%d", ports[3]),
		"RABBITMQ_MNESIA_BASE=" + dir + "/mnesia", "RABBITMQ_LOG_BASE=" + dir + "/log", "RABBITMQ_CONFIG_FILE=" + dir + "/rabbitmq",
		"RABBITMQ_CONF_ENV_FILE=" + dir + "/none", "RABBITMQ_ENABLED_PLUGINS_FILE=" + dir + "/plugins",
		// With input allowed the script becomes the broker, and without any that does not end.
		"RABBITMQ_ALLOW_INPUT=1", "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-noinput -start_epmd false -kernel inet_dist_use_interface {127,0,0,1}",
	}
	answers, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if b.commands, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	b.answers = bufio.NewReader(answers)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, "output"))
			t.Logf("the broker's log ends: %s", log[max(0, len(log)-3000):])
		}
		b.commands.Close()
		_ = cmd.Wait() // it was told to end
		os.RemoveAll(dir)
	})
	b.tell(t, "start")
	b.await(t)
	return b
}

// tell gives the supervisor a command: start, kill, pause or resume.
func (b *broker) tell(t *testing.T, word string) {
	t.Helper()
	if _, err := fmt.Fprintln(b.commands, word); err != nil {
		t.Fatal(err)
	}
	if line, err := b.answers.ReadString('\n'); err != nil || strings.TrimSpace(line) != word {
		t.Fatalf("the supervisor answers %q to %s: %v", line, word, err)
	}
}

// await waits until the broker speaks.
func (b *broker) await(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Minute) // a busy machine has needed more than two
	for {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", b.tls))
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the broker does not come up: %v", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func freePorts(t *testing.T, n int) (ports []int) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

// certificates makes an authority, and certificates of a server, for localhost, and of a client.
func certificates(t *testing.T, dir string) {
	t.Helper()
	write := func(file, kind string, der []byte) {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var authority *x509.Certificate
	var authorityKey *ecdsa.PrivateKey
	for i, name := range []string{"ca", "server", "client"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"localhost"},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true,
		}
		if authority == nil {
			authority, authorityKey = c, key
			c.IsCA, c.KeyUsage, c.ExtKeyUsage, c.DNSNames = true, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature, nil, nil
		}
		der, err := x509.CreateCertificate(rand.Reader, c, authority, &key.PublicKey, authorityKey)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		write(name+".pem", "CERTIFICATE", der)
		write(name+".key", "EC PRIVATE KEY", raw)
	}
}
