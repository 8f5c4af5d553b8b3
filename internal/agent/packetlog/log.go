package packetlog

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"
)

// Record is one packet that became one event.
type Record struct {
	Action    string   // "ACCEPT" or "DROP"
	ProjectID string   // whose logs these are
	Logs      []string // ids of the logs that asked for it
	PortID    string   // port that sent it, or was to receive it
	Frame     []byte   // Ethernet frame
}

// Options of a Log.
type Options struct {
	// Path of the file that gets the records.
	Path   string           // optional: they go to Logger
	Logger *slog.Logger     // required
	Now    func() time.Time // optional: time.Now
}

// Log takes records. It is used by one goroutine.
type Log struct {
	o       Options
	file    *os.File
	info    fs.FileInfo // of file
	failing bool
}

// New makes a Log; a file is opened with the first record.
func New(o Options) *Log {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Log{o: o}
}

// Write writes a record. When the file does not take it, the logger does.
func (l *Log) Write(r Record) {
	packet := Describe(r.Frame)
	if l.o.Path != "" {
		err := l.toFile(r, packet)
		if err == nil {
			l.failing = false
			return
		}
		if !l.failing {
			l.o.Logger.Error("records of packets go here, since their file cannot be written", "error", err)
			l.failing = true
		}
	}
	l.o.Logger.Info("packet", "action", r.Action, "project_id", r.ProjectID, "log_resource_ids", r.Logs, "vm_port", r.PortID, "pkt", packet)
}

// toFile appends one line, as oslo.log forms them.
func (l *Log) toFile(r Record, packet string) error {
	if err := l.open(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(l.file, "%s %d INFO packet_log [-] action=%s project_id=%s log_resource_ids=[%s] vm_port=%s pkt=%s\n",
		l.o.Now().Format("2006-01-02 15:04:05.000"), os.Getpid(), r.Action, r.ProjectID, quoted(r.Logs), r.PortID, packet)
	return err
}

// open opens the file, anew if it has been moved or removed since, which is
// what logrotate does.
func (l *Log) open() error {
	info, err := os.Stat(l.o.Path)
	if l.file != nil && err == nil && os.SameFile(info, l.info) {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l.Close()
	file, err := os.OpenFile(l.o.Path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	if l.info, err = file.Stat(); err != nil {
		return errors.Join(err, file.Close())
	}
	l.file = file
	return nil
}

// Close closes the file; the next record opens it again.
func (l *Log) Close() {
	if l.file != nil {
		_ = l.file.Close()
		l.file = nil
	}
}

// quoted is the list as Python writes it.
func quoted(ids []string) string {
	list := slices.Clone(ids)
	for i, id := range list {
		list[i] = "'" + id + "'"
	}
	return strings.Join(list, ", ")
}
