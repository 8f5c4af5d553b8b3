// Package nft keeps one nftables table of ours in each network namespace: it
// is replaced as a whole and atomically, and only when it differs.
//
// It must not know what the rules are for.
package nft

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"sigs.k8s.io/knftables"
)

// TableName is the name of the table, of family inet. Tables of other names
// are never touched.
const TableName = "isospin"

// marker is the prefix of an empty chain whose name carries the hash of the
// script that made the table, so a later process can tell what is there.
const marker = "script-"

// Objects are the content of a table in the order in which they are made:
// chains and maps before what refers to them.
type Objects []knftables.Object

// Script returns the commands that make the table, as for `nft -f`.
func (o Objects) Script() (string, error) {
	tx := knftables.NewFake(knftables.InetFamily, TableName).NewTransaction()
	o.fill(tx)
	text := tx.String()
	if i := strings.LastIndex(text, "# ERROR: "); i >= 0 {
		return "", fmt.Errorf("nftables script: %s", text[i+len("# ERROR: "):])
	}
	return text, nil
}

func (o Objects) fill(tx *knftables.Transaction) {
	tx.Add(&knftables.Table{})
	tx.Delete(&knftables.Table{})
	tx.Add(&knftables.Table{})
	for _, obj := range o {
		tx.Add(obj)
	}
}

// Scripted is the content of a table.
type Scripted interface {
	// Script returns the commands that make the table, as for `nft -f`.
	Script() (string, error)
}

// Helper is a helper of connection tracking that rules set by its name, as
// `ct helper set "name"`. Both its kernel and its protocol are words of nft.
type Helper struct {
	Name     string
	Kernel   string // the kernel's name of it, "ftp"
	Protocol string // tcp or udp
}

func (h Helper) command() string {
	return fmt.Sprintf("add ct helper inet %s %s { type %q protocol %s ; }\n", TableName, h.Name, h.Kernel, h.Protocol)
}

// Supported asks the kernel whether it has a helper; nothing is changed.
func (h Helper) Supported(ctx context.Context) bool {
	cmd := exec.CommandContext(ctx, "nft", "-c", "-f", "-")
	cmd.Stdin = strings.NewReader("add table inet " + TableName + "\n" + h.command())
	return cmd.Run() == nil
}

// Helped is a table with helpers, which come before the objects.
type Helped struct {
	Objects Objects
	Helpers []Helper
}

// Script implements Scripted.
func (h Helped) Script() (string, error) {
	head, err := Objects(nil).Script()
	if err != nil {
		return "", err
	}
	whole, err := h.Objects.Script()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString(head)
	for _, helper := range h.Helpers {
		b.WriteString(helper.command())
	}
	b.WriteString(strings.TrimPrefix(whole, head))
	return b.String(), nil
}

// Table is the table, in whichever namespace its methods are called.
// Safe for concurrent use.
type Table struct{}

// Open looks for the nft program and what it can do.
func Open() (*Table, error) {
	if _, err := knftables.New(knftables.InetFamily, TableName, knftables.NoObjectCommentEmulation); err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	return &Table{}, nil
}

// Fingerprint identifies the exact content of a table in the kernel.
type Fingerprint string

// Replace makes the table of the calling thread's namespace be what objects
// say. known is the Fingerprint of the last Replace, empty after a restart:
// with it changes by others are noticed and undone. The table is replaced in
// one transaction, so no packet sees a part of it.
func (t *Table) Replace(ctx context.Context, objects Scripted, known Fingerprint) (now Fingerprint, changed bool, err error) {
	script, err := objects.Script()
	if err != nil {
		return "", false, err
	}
	sum := sha256.Sum256([]byte(script))
	name := marker + hex.EncodeToString(sum[:10])
	listing, err := list(ctx)
	if err != nil {
		return "", false, err
	}
	if now = fingerprint(listing); strings.Contains(listing, "\tchain "+name+" {") && (known == "" || known == now) {
		return now, false, nil
	}
	var stderr strings.Builder
	cmd := exec.CommandContext(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script + "add chain inet " + TableName + " " + name + "\n")
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		// nft repeats each command that it did not come to; the first lines say why.
		reason, _, _ := strings.Cut(strings.TrimSpace(stderr.String()), "\n^")
		return "", false, fmt.Errorf("replace nftables table %s: %w: %s", TableName, err, strings.ReplaceAll(reason, "\n", ": "))
	}
	if listing, err = list(ctx); err != nil {
		return "", true, err
	}
	return fingerprint(listing), true, nil
}

func fingerprint(listing string) Fingerprint {
	sum := sha256.Sum256([]byte(listing))
	return Fingerprint(hex.EncodeToString(sum[:]))
}

// list returns the table in nft's own words, empty when it is not there.
func list(ctx context.Context) (string, error) {
	var stderr strings.Builder
	cmd := exec.CommandContext(ctx, "nft", "list", "table", "inet", TableName)
	cmd.Env = append(cmd.Environ(), "LC_ALL=C")
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && strings.Contains(stderr.String(), "No such file or directory") {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("list nftables table %s: %w: %s", TableName, err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}
