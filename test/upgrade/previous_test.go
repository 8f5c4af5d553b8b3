package upgrade

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestPrevious: the release before is the newest tag below this commit, and a
// clone that does not know it says so.
func TestPrevious(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	script, err := filepath.Abs("previous.sh")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(script)
	if err != nil {
		t.Fatal(err)
	}
	git := func(dir string, args ...string) string {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	origin := t.TempDir()
	commit := func(files map[string]string) string {
		t.Helper()
		for name, content := range files {
			path := filepath.Join(origin, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		git(origin, "add", ".")
		git(origin, "commit", "-q", "--allow-empty", "-m", "x")
		return git(origin, "rev-parse", "HEAD")
	}
	previous := func(dir string) (out, complaint string, status int) {
		t.Helper()
		cmd := exec.Command("test/upgrade/previous.sh")
		cmd.Dir = dir
		// What is around the directory is not asked.
		cmd.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(dir))
		var errs strings.Builder
		cmd.Stderr = &errs
		text, err := cmd.Output()
		var e *exec.ExitError
		if errors.As(err, &e) {
			status = e.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(text)), errs.String(), status
	}
	clone := func(args ...string) string {
		t.Helper()
		dir := filepath.Join(t.TempDir(), "clone")
		git(origin, append(append([]string{"clone", "-q"}, args...), "file://"+origin, dir)...)
		return dir
	}
	refused := func(when, dir, words string) {
		t.Helper()
		if out, complaint, status := previous(dir); status != 3 || out != "" || !strings.Contains(complaint, words) {
			t.Errorf("%s: %q, status %d, says %q, not %q", when, out, status, complaint, words)
		}
	}
	is := func(when, dir, want string) {
		t.Helper()
		if out, complaint, status := previous(dir); status != 0 || out != want {
			t.Errorf("%s: %q instead of %q, status %d: %s", when, out, want, status, complaint)
		}
	}

	git(origin, "init", "-q")
	commit(map[string]string{"a": "a"})
	frozen := commit(map[string]string{"test/upgrade/previous.sh": string(text), "test/upgrade/testdata/schema.golden": "x"})
	refused("the first of all", origin, "nothing is older")
	commit(map[string]string{"b": "b"})
	is("the tables have always been the same", origin, frozen)
	same := git(origin, "rev-parse", "HEAD")
	commit(map[string]string{"test/upgrade/testdata/schema.golden": "y"})
	commit(map[string]string{"b": "c"})
	is("before the first release", origin, same)
	refused("shallow, before the first release", clone("--depth", "1"), "shallow")
	git(origin, "tag", "v0.1.0")
	is("the first release itself", origin, same)
	commit(nil)
	git(origin, "tag", "other")
	is("after a release", origin, "v0.1.0")
	is("a clone after a release", clone(), "v0.1.0")
	refused("shallow, after a release", clone("--depth", "1"), "shallow")
	commit(nil)
	git(origin, "tag", "v0.2.0")
	is("the second release itself", origin, "v0.1.0")
	is("as deep as the release before", clone("--depth", "3"), "v0.1.0")
	bare := t.TempDir()
	if err := os.CopyFS(bare, os.DirFS(origin)); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(bare, ".git")); err != nil {
		t.Fatal(err)
	}
	refused("no clone", bare, "no clone")
}
