package l3

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// record is the list of the namespaces that the feature made, kept on disk so
// that a later process may delete them. Safe for concurrent use.
type record struct {
	file string

	mu    sync.Mutex
	names map[string]struct{}
}

type recordFile struct {
	Namespaces []string `json:"namespaces"`
}

func openRecord(dir string) (*record, error) {
	r := &record{file: filepath.Join(dir, "l3-namespaces.json"), names: map[string]struct{}{}}
	b, err := os.ReadFile(r.file)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	var content recordFile
	if err == nil {
		err = json.Unmarshal(b, &content)
	}
	if err != nil {
		return nil, fmt.Errorf("record of router namespaces: %w", err)
	}
	for _, n := range content.Namespaces {
		if strings.HasPrefix(n, NamespacePrefix) {
			r.names[n] = struct{}{}
		}
	}
	return r, nil
}

// add records a name before its namespace is made.
func (r *record) add(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.names[name]; ok {
		return nil
	}
	r.names[name] = struct{}{}
	if err := r.save(); err != nil {
		delete(r.names, name)
		return err
	}
	return nil
}

// remove forgets a name after its namespace was deleted.
func (r *record) remove(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.names[name]; !ok {
		return nil
	}
	delete(r.names, name)
	return r.save()
}

func (r *record) has(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.names[name]
	return ok
}

func (r *record) list() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.names))
}

func (r *record) save() error {
	if err := replaceFile(r.file, recordFile{Namespaces: slices.Sorted(maps.Keys(r.names))}); err != nil {
		return fmt.Errorf("record of router namespaces: %w", err)
	}
	return nil
}

// replaceFile makes a file, which only its owner can read, be a value's JSON: the whole of it or what it was.
func replaceFile(file string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	tmp := file + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, file)
}
