package runtime

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"isospin/api/feed"
)

func upsertPort(id string, version uint64) *feed.ServerMessage {
	return &feed.ServerMessage{Upserts: []*feed.Object{{Version: version, Body: &feed.Object_Port{Port: &feed.Port{Id: id, Revision: int64(version)}}}}}
}

func journalled(t *testing.T, dir string) []*feed.ServerMessage {
	t.Helper()
	list, err := readJournals(dir, "host1")
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestJournalHoldsWhatWasSaidSinceTheStateFile(t *testing.T) {
	dir := t.TempDir()
	hello := &feed.Hello{Host: "host1"}
	j, err := newJournal(dir, hello)
	if err != nil {
		t.Fatal(err)
	}
	first, second, third := upsertPort("a", 1), upsertPort("b", 1), upsertPort("a", 2)
	for _, step := range []error{j.append(first), j.append(second)} {
		if step != nil {
			t.Fatal(step)
		}
	}
	upTo := j.rotate() // a state file is written from here on
	if err := j.append(third); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]*feed.ServerMessage{first, second, third}, journalled(t, dir), protocmp.Transform()); diff != "" {
		t.Errorf("before the state file is there:\n%s", diff)
	}
	if err := dropJournals(dir, upTo); err != nil {
		t.Fatal(err)
	}
	// A new process goes on after what is there.
	if j, err = newJournal(dir, hello); err != nil {
		t.Fatal(err)
	}
	if err := j.append(first); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]*feed.ServerMessage{third, first}, journalled(t, dir), protocmp.Transform()); diff != "" {
		t.Errorf("after it:\n%s", diff)
	}
}

func TestDamagedJournalLosesOnlyItsEnd(t *testing.T) {
	write := func(t *testing.T) (dir, path string, size int64) {
		dir = t.TempDir()
		j, err := newJournal(dir, &feed.Hello{Host: "host1"})
		if err != nil {
			t.Fatal(err)
		}
		if err := j.append(upsertPort("a", 1)); err != nil {
			t.Fatal(err)
		}
		path = journalPath(dir, 1)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := j.append(upsertPort("b", 1)); err != nil {
			t.Fatal(err)
		}
		return dir, path, info.Size()
	}
	for name, damage := range map[string]func(path string, size int64) error{
		"cut short":  func(path string, size int64) error { return os.Truncate(path, size+3) },
		"a bit":      func(path string, size int64) error { return flip(path, size+8) },
		"the length": func(path string, size int64) error { return flip(path, size+4) },
	} {
		t.Run(name, func(t *testing.T) {
			dir, path, size := write(t)
			if err := damage(path, size); err != nil {
				t.Fatal(err)
			}
			list, err := readJournals(dir, "host1")
			if err == nil {
				t.Error("the damage is not told")
			}
			if diff := cmp.Diff([]*feed.ServerMessage{upsertPort("a", 1)}, list, protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
		})
	}
	dir, _, _ := write(t)
	if list, err := readJournals(dir, "host2"); err == nil || len(list) > 0 {
		t.Errorf("another host's journal: %v, %v", list, err)
	}
}

func flip(path string, at int64) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	data[at] ^= 0x40
	return os.WriteFile(path, data, 0o600)
}

// What a feature sees is in the journal already, and messages of a sync are
// there only when all of it is.
func TestNothingIsSeenThatWasNotJournalled(t *testing.T) {
	var put []*feed.ServerMessage
	d := newDesired(func(*Changes) {})
	s := d.subscribe()
	d.record = func(list ...*feed.ServerMessage) {
		select {
		case <-s.wake:
			t.Error("a feature was woken before the journal had it")
		default:
		}
		put = append(put, list...)
	}
	d.beginSync()
	part, rest := upsertPort("a", 1), upsertPort("b", 1)
	rest.Synced = true
	if err := d.apply(part); err != nil {
		t.Fatal(err)
	}
	if len(put) != 0 {
		t.Errorf("half a sync is in the journal: %v", put)
	}
	if err := d.apply(rest); err != nil {
		t.Fatal(err)
	}
	<-s.wake
	news := upsertPort("c", 1)
	if err := d.apply(news); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]*feed.ServerMessage{part, rest, news}, put, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}

	again := newDesired(func(*Changes) {})
	if err := again.load(put); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(d.state(), again.state(), protocmp.Transform()); diff != "" {
		t.Errorf("replayed:\n%s", diff)
	}
}

func TestJournalIsItsOwners(t *testing.T) {
	dir := t.TempDir()
	j, err := newJournal(dir, &feed.Hello{Host: "host1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := j.append(upsertPort("a", 1)); err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(filepath.Join(dir, journalPrefix+"*"))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	if info, err := os.Stat(names[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
}
