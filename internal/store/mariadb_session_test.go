package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"
)

// scripted is a server that knows of nothing but transactions. Its next
// statement that begins with fail is interrupted.
type scripted struct {
	auto, open bool
	fail       string
	wrong      []string
}

func (s *scripted) Connect(context.Context) (driver.Conn, error) { return s, nil }
func (s *scripted) Driver() driver.Driver                        { return nil }
func (s *scripted) Begin() (driver.Tx, error)                    { return nil, errors.ErrUnsupported }
func (s *scripted) Close() error                                 { return nil }

func (s *scripted) carryOut(text string) (n int, err error) {
	for one := range strings.SplitSeq(text, ";") {
		n++
		if s.fail != "" && strings.HasPrefix(one, s.fail) {
			s.fail = ""
			return n, &mysql.MySQLError{Number: 1317, Message: "Query execution was interrupted"}
		}
		switch word, _, _ := strings.Cut(one, " "); {
		case one == autocommit:
			s.auto, s.open = true, false
		case one == noAutocommit:
			s.auto = false
		case one == "BEGIN":
			s.open = true
		case one == "COMMIT", one == "ROLLBACK":
			s.open = false
		default:
			s.open = s.open || !s.auto
			if s.auto && word != "SELECT" {
				s.wrong = append(s.wrong, one)
			}
		}
	}
	return n, nil
}

func (s *scripted) ExecContext(_ context.Context, text string, _ []driver.NamedValue) (driver.Result, error) {
	n, err := s.carryOut(text)
	return counts(n), err
}

func (s *scripted) QueryContext(_ context.Context, text string, _ []driver.NamedValue) (driver.Rows, error) {
	_, err := s.carryOut(text)
	return noRows{}, err
}

func (s *scripted) Prepare(text string) (driver.Stmt, error) { return prepared{s, text}, nil }
func (s *scripted) PrepareContext(_ context.Context, text string) (driver.Stmt, error) {
	return s.Prepare(text)
}

type prepared struct {
	s    *scripted
	text string
}

func (p prepared) Close() error  { return nil }
func (p prepared) NumInput() int { return -1 }
func (p prepared) Exec([]driver.Value) (driver.Result, error) {
	return p.s.ExecContext(context.Background(), p.text, nil)
}
func (p prepared) Query([]driver.Value) (driver.Rows, error) {
	return p.QueryContext(context.Background(), nil)
}
func (p prepared) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return p.s.QueryContext(ctx, p.text, args)
}

type noRows struct{}

func (noRows) Columns() []string         { return []string{"c"} }
func (noRows) Close() error              { return nil }
func (noRows) Next([]driver.Value) error { return io.EOF }

// counts are those of so many statements.
type counts int

func (n counts) LastInsertId() (int64, error) { return 1, nil }
func (n counts) RowsAffected() (int64, error) { return 1, nil }
func (n counts) AllRowsAffected() []int64     { return make([]int64, n) }
func (n counts) AllLastInsertIds() []int64    { return make([]int64, n) }

// TestInterrupted: a session whose statement was interrupted, whichever that
// was, writes in transactions, and leaves none open.
func TestInterrupted(t *testing.T) {
	for _, fail := range []string{autocommit, noAutocommit, "SELECT", "UPDATE", "BEGIN", "COMMIT"} {
		for _, auto := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, autocommit %v", fail, auto), func(t *testing.T) {
				s := &scripted{}
				db := sql.OpenDB(s)
				defer db.Close()
				conn, err := db.Conn(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				c := &mariadbSession{keys: &uniqueKeys{}, late: &lateKeys{}, asked: map[string]driver.Stmt{}}
				c.connection = &connection{conn: conn, classify: func(err error) error { return err }, limit: 9, statements: map[string]*sql.Stmt{}}
				defer c.close()
				turn := func(do func() error) {
					err := do()
					if err != nil {
						if err := c.rollback(); err != nil {
							t.Fatal(err)
						}
					}
					if s.open {
						t.Errorf("a transaction stays open after %v", err)
					}
				}
				ask := []reading{{question: &question{query: "SELECT 1", row: func(func(...any) error) error { return nil }}}}
				read := func() error {
					c.begin(false)
					return c.send(nil, ask, true)
				}
				write := func() error {
					c.begin(true)
					return c.send([]write{{query: "UPDATE network SET name = ''"}}, nil, true)
				}
				several := func() error {
					c.begin(false)
					return c.send(nil, append(ask, ask...), true)
				}
				if turn(write); auto {
					turn(read)
				}
				s.fail = fail
				for range 2 {
					for _, do := range []func() error{several, write, read, read, several, write} {
						turn(do)
					}
				}
				if s.fail != "" || s.wrong != nil {
					t.Errorf("not interrupted: %q; without a transaction: %q", s.fail, s.wrong)
				}
			})
		}
	}
}
