package runtime

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protodelim"

	"isospin/api/feed"
)

// The state file is a line that names the format, a Hello (host and version of
// the binary that wrote it), ServerMessages, the last of which is synced, and
// the SHA-256 of all that comes before it. Messages are preceded by their
// length, as protodelim does.
const (
	stateFileName   = "agent-state"
	lockFileName    = "agent-lock"
	stateFileFormat = "isospin agent state 1\n"
	// Objects to a message of the state file.
	stateFileChunk = 500
	// An object is at most some MB: an address set of a million members.
	stateFileMaxMessage = 256 << 20
)

// encodeState renders the state file.
func encodeState(hello *feed.Hello, list []*feed.ServerMessage) ([]byte, error) {
	var buf bytes.Buffer
	buf.WriteString(stateFileFormat)
	if _, err := protodelim.MarshalTo(&buf, hello); err != nil {
		return nil, fmt.Errorf("state file header: %w", err)
	}
	for _, msg := range list {
		if _, err := protodelim.MarshalTo(&buf, msg); err != nil {
			return nil, fmt.Errorf("state file message: %w", err)
		}
	}
	sum := sha256.Sum256(buf.Bytes())
	buf.Write(sum[:])
	return buf.Bytes(), nil
}

// decodeState is the inverse of encodeState. It fails on anything that
// encodeState for the same host would not have made.
func decodeState(data []byte, host string) ([]*feed.ServerMessage, error) {
	if !bytes.HasPrefix(data, []byte(stateFileFormat)) {
		return nil, errors.New("not a state file of this format")
	}
	if len(data) < len(stateFileFormat)+sha256.Size {
		return nil, io.ErrUnexpectedEOF
	}
	body, sum := data[:len(data)-sha256.Size], data[len(data)-sha256.Size:]
	if sha256.Sum256(body) != [sha256.Size]byte(sum) {
		return nil, errors.New("checksum does not match")
	}
	r := bufio.NewReader(bytes.NewReader(body[len(stateFileFormat):]))
	limit := protodelim.UnmarshalOptions{MaxSize: stateFileMaxMessage}
	var hello feed.Hello
	if err := limit.UnmarshalFrom(r, &hello); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	if hello.Host != host {
		return nil, fmt.Errorf("state is of host %q, this is host %q", hello.Host, host)
	}
	var list []*feed.ServerMessage
	for {
		msg := new(feed.ServerMessage)
		switch err := limit.UnmarshalFrom(r, msg); {
		case err == nil:
			list = append(list, msg)
		case errors.Is(err, io.EOF) && len(list) > 0 && list[len(list)-1].Synced:
			return list, nil
		case errors.Is(err, io.EOF):
			return nil, io.ErrUnexpectedEOF
		default:
			return nil, fmt.Errorf("message %d: %w", len(list), err)
		}
	}
}

// readStateFile returns nil, nil if there is no file.
func readStateFile(dir, host string) ([]*feed.ServerMessage, error) {
	path := filepath.Join(dir, stateFileName)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("state file: %w", err)
	}
	list, err := decodeState(data, host)
	if err != nil {
		return nil, fmt.Errorf("state file %s: %w", path, err)
	}
	return list, nil
}

// writeStateFile replaces the file atomically; after a power cut there is the
// old one or the new one. Only its owner can read it.
func writeStateFile(dir string, data []byte) (err error) {
	path := filepath.Join(dir, stateFileName)
	f, err := os.CreateTemp(dir, stateFileName+".*.tmp") // mode 0600
	if err != nil {
		return fmt.Errorf("state file: %w", err)
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
			err = fmt.Errorf("state file %s: %w", path, err)
		}
	}()
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

const lockPatience = 500 * time.Millisecond

// lockDirectory keeps a second agent from working on the same state, and thus
// on the same host. The kernel unlocks when the process is gone, however it
// ended.
func lockDirectory(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFileName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock file: %w", err)
	}
	// A child that a killed agent had begun to start holds the lock until it runs its program.
	give := time.Now().Add(lockPatience)
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	for errors.Is(err, unix.EWOULDBLOCK) && time.Now().Before(give) {
		time.Sleep(10 * time.Millisecond)
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		f.Close()
		return nil, fmt.Errorf("another agent is running with the state directory %s", dir)
	case err != nil:
		f.Close()
		return nil, fmt.Errorf("lock file %s: %w", f.Name(), err)
	}
	return f, nil
}

// removeLeftovers removes temporary files of an agent that was killed while writing.
func removeLeftovers(dir string) {
	names, _ := filepath.Glob(filepath.Join(dir, stateFileName+".*.tmp"))
	for _, name := range names {
		os.Remove(name)
	}
}
