package agent

import (
	"errors"

	"isospin/internal/store"
)

// An attachment is a host's stream to one of the servers; its number is one
// more than that of the host's attachment before.
const attachmentTable = `CREATE TABLE agent_attachment (host VARCHAR(255) PRIMARY KEY, generation BIGINT NOT NULL)`

// ErrDetached: the host has attached anew since, here or to another server.
var ErrDetached = errors.New("the host has attached anew")

// Attach gives hosts that attach, each named once, the numbers of their attachments.
func (s *Service) Attach(tx *store.Tx, hosts ...string) (map[string]int64, error) {
	numbers, err := s.Attachments(tx, hosts...)
	if err != nil {
		return nil, err
	}
	var known []string
	for _, host := range hosts {
		if _, is := numbers[host]; is {
			known = append(known, host)
		} else if err := tx.Put("INSERT INTO agent_attachment (host, generation) VALUES (?, 1)", host); err != nil {
			return nil, err
		}
		numbers[host]++
	}
	if len(known) > 0 {
		in, args := store.In("host", hostsOf(known))
		if err := tx.Put("UPDATE agent_attachment SET generation = generation + 1 WHERE "+in, args...); err != nil {
			return nil, err
		}
	}
	return numbers, nil
}

// Attachments are the numbers of hosts' present attachments. In a transaction
// that stores what a host said over an attachment they are the fence: a server
// that was paused, and goes on, must not store an old word over a newer one.
func (s *Service) Attachments(tx *store.Tx, hosts ...string) (map[string]int64, error) {
	numbers := make(map[string]int64, len(hosts))
	if len(hosts) == 0 {
		return numbers, nil
	}
	in, args := store.In("host", hostsOf(hosts))
	return numbers, tx.Query(func(scan func(...any) error) error {
		var host string
		var generation int64
		if err := scan(&host, &generation); err != nil {
			return err
		}
		numbers[host] = generation
		return nil
	}, "SELECT host, generation FROM agent_attachment WHERE "+in, args...)
}

func hostsOf(hosts []string) []any {
	values := make([]any, len(hosts))
	for i, host := range hosts {
		values[i] = host
	}
	return values
}
