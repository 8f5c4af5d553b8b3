package migration

import (
	"database/sql"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"isospin/internal/store/storetest"
)

var (
	rowOfGuide = regexp.MustCompile(`(?m)^\s*\| (SQLite|PostgreSQL|MariaDB) \| (.*) \|$`)
	quoted     = regexp.MustCompile("`([^`]+)`")
)

// guide returns the commands that make a backup and bring it back, by the name of the database.
func guide(t *testing.T) (backup, restore map[string][]string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/operate/backup.md")
	if err != nil {
		t.Fatal(err)
	}
	backup, restore = map[string][]string{}, map[string][]string{}
	for _, m := range rowOfGuide.FindAllStringSubmatch(string(text), -1) {
		into := backup
		if backup[m[1]] != nil {
			into = restore
		}
		for _, command := range quoted.FindAllStringSubmatch(m[2], -1) {
			into[m[1]] = append(into[m[1]], command[1])
		}
	}
	return backup, restore
}

// TestBackup does what the guide says: a backup while clients write, and then
// a server on what came of it.
func TestBackup(t *testing.T) {
	if testing.Short() {
		t.Skip("it fills databases")
	}
	backup, restore := guide(t)
	for name, kind := range map[string]string{"SQLite": storetest.SQLite, "PostgreSQL": storetest.PostgreSQL, "MariaDB": storetest.MariaDB} {
		t.Run(kind, func(t *testing.T) {
			if len(backup[name]) == 0 || len(restore[name]) == 0 {
				t.Fatalf("the guide has no commands for %s", name)
			}
			dir := t.TempDir()
			connection := named(t, kind, dir)
			p := startServer(t, connection, "")
			c := client{t, p.url}
			network := fill(c, 100)
			objects := listed(c)
			load := startLoad(t, p.url, network)
			load.until(10)
			command(t, kind, connection, dir, backup[name])
			load.stop()
			// What was made since is gone after.
			late := c.make("networks", "network", `{"name":"late"}`)
			p.stop(t)

			command(t, kind, connection, dir, restore[name])
			check(t, connection, false, "fits this program")
			p = startServer(t, connection, "")
			c.url = p.url
			same(t, "restored", objects, listed(c))
			if status, _, err := c.do("GET", "networks/"+late, ""); status != 404 {
				t.Errorf("what came after the backup is there: %d, %v", status, err)
			}
			c.make("ports", "port", `{"network_id":%q}`, network)
		})
	}
}

// named is a database whose name is that of the guide.
func named(t *testing.T, kind, dir string) string {
	t.Helper()
	if kind == storetest.SQLite {
		if _, err := exec.LookPath("sqlite3"); err != nil {
			t.Skip(err)
		}
		return "sqlite:///" + filepath.Join(dir, "isospin.sqlite")
	}
	connection := storetest.NewOf(t, kind)
	driver, source := storetest.Source(t, connection)
	db, err := sql.Open(driver, source)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := db.Exec("DROP DATABASE isospin"); err != nil {
			t.Error(err)
		}
		db.Close()
	})
	if _, err := db.Exec("CREATE DATABASE isospin"); err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`/isospin_\d+\?`).ReplaceAllString(connection, "/isospin?")
}

// command runs commands of the guide in one shell.
func command(t *testing.T, kind, connection, dir string, list []string) {
	t.Helper()
	text := strings.Join(list, "\n")
	// The account of the package is not there.
	text = strings.NewReplacer("/var/lib/neutron", dir, "/backup/", dir+"/backup-", "-o neutron -g neutron ", "").Replace(text)
	cmd := exec.Command("/bin/sh", "-e", "-x", "-c", text)
	_, source := storetest.Source(t, connection)
	switch kind {
	case storetest.PostgreSQL:
		cmd.Env = append(os.Environ(), "PGUSER=isospin", "PGHOST="+source[strings.LastIndex(source, "=")+1:], "PGDATABASE=postgres")
	case storetest.MariaDB:
		_, rest, _ := strings.Cut(source, "(")
		socket, _, _ := strings.Cut(rest, ")")
		if err := os.WriteFile(filepath.Join(dir, ".my.cnf"), []byte("[client]\nsocket="+socket+"\nuser=root\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd.Env = append(os.Environ(), "HOME="+dir)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	} else if strings.Contains(string(out), "rror") {
		t.Errorf("%s", out)
	}
}
