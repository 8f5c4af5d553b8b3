package runtime

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"

	"isospin/api/feed"
)

// The journal is what the server said since the state file was written, put
// down before any feature acts upon it: an agent that is killed at any moment
// and starts again knows at least what its host was wired by, and takes nothing
// away that it has just made. It is not synced to the disk: what only a power
// cut loses, the power cut takes with it.
//
// A journal file is a Hello and ServerMessages, each preceded by the CRC-32 of
// what follows and its length. The state file and all journals after it, in the
// order of their numbers, are the state; a journal that the state file has
// already is harmless, since later messages win.
type journal struct {
	dir    string
	hello  *feed.Hello
	number int
	file   *os.File // nil: the next append opens one
	failed bool     // an append failed; told once
}

const journalPrefix = "agent-journal."

// journalNumbers are the numbers of the journals in a directory, in order.
func journalNumbers(dir string) ([]int, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("journals: %w", err)
	}
	var numbers []int
	for _, e := range entries {
		if text, ok := strings.CutPrefix(e.Name(), journalPrefix); ok {
			if n, err := strconv.Atoi(text); err == nil {
				numbers = append(numbers, n)
			}
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

func journalPath(dir string, number int) string {
	return filepath.Join(dir, journalPrefix+strconv.Itoa(number))
}

func newJournal(dir string, hello *feed.Hello) (*journal, error) {
	numbers, err := journalNumbers(dir)
	if err != nil {
		return nil, err
	}
	j := &journal{dir: dir, hello: hello, number: 1}
	if len(numbers) > 0 {
		j.number = numbers[len(numbers)-1] + 1
	}
	return j, nil
}

// append puts messages down, in one write.
func (j *journal) append(messages ...*feed.ServerMessage) error {
	var buf bytes.Buffer
	if j.file == nil {
		f, err := os.OpenFile(journalPath(j.dir, j.number), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("journal: %w", err)
		}
		j.file = f
		if err := record(&buf, j.hello); err != nil {
			return err
		}
	}
	for _, m := range messages {
		if err := record(&buf, m); err != nil {
			return err
		}
	}
	if _, err := j.file.Write(buf.Bytes()); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

func record(buf *bytes.Buffer, m proto.Message) error {
	var body bytes.Buffer
	if _, err := protodelim.MarshalTo(&body, m); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	buf.Write(binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(body.Bytes())))
	buf.Write(body.Bytes())
	return nil
}

// rotate makes the next append begin another file, and returns the number up
// to which a state file that is written now has everything.
func (j *journal) rotate() int {
	if j.file != nil {
		j.file.Close()
		j.file = nil
		j.number++
	}
	return j.number - 1
}

// dropJournals removes the journals up to a number.
func dropJournals(dir string, upTo int) error {
	numbers, err := journalNumbers(dir)
	for _, n := range numbers {
		if n <= upTo {
			err = errors.Join(err, os.Remove(journalPath(dir, n)))
		}
	}
	return err
}

// readJournals returns the messages of all journals in order. What a journal
// holds after a damaged record is lost; errors tell.
func readJournals(dir, host string) ([]*feed.ServerMessage, error) {
	numbers, err := journalNumbers(dir)
	var all []*feed.ServerMessage
	for _, n := range numbers {
		list, readErr := readJournal(journalPath(dir, n), host)
		all = append(all, list...)
		err = errors.Join(err, readErr)
	}
	return all, err
}

func readJournal(path, host string) ([]*feed.ServerMessage, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	var list []*feed.ServerMessage
	for first := true; len(data) > 0; first = false {
		var m proto.Message = new(feed.ServerMessage)
		if first {
			m = new(feed.Hello)
		}
		n, err := readRecord(data, m)
		if err != nil {
			return list, fmt.Errorf("%s after %d messages: %w", path, len(list), err)
		}
		data = data[n:]
		switch m := m.(type) {
		case *feed.Hello:
			if m.Host != host {
				return nil, fmt.Errorf("%s is of host %q, this is host %q", path, m.Host, host)
			}
		case *feed.ServerMessage:
			list = append(list, m)
		}
	}
	return list, nil
}

// readRecord decodes the record at the beginning of data and returns its length.
func readRecord(data []byte, m proto.Message) (int, error) {
	if len(data) < 5 {
		return 0, io.ErrUnexpectedEOF
	}
	size, prefix := binary.Uvarint(data[4:])
	if prefix <= 0 || size > stateFileMaxMessage || uint64(len(data)-4-prefix) < size {
		return 0, io.ErrUnexpectedEOF
	}
	end := 4 + prefix + int(size)
	if crc32.ChecksumIEEE(data[4:end]) != binary.LittleEndian.Uint32(data) {
		return 0, errors.New("checksum does not match")
	}
	limit := protodelim.UnmarshalOptions{MaxSize: stateFileMaxMessage}
	return end, limit.UnmarshalFrom(bufio.NewReader(bytes.NewReader(data[4:end])), m)
}
