package feed

import (
	"context"

	"isospin/api/feed"
	"isospin/internal/core/port"
	"isospin/internal/store"
)

// AppliedFunc takes a host's report on one object, in a transaction of
// several. It is idempotent and ignores what is late or about nothing.
type AppliedFunc func(ctx context.Context, tx *store.Tx, host string, a *feed.Applied) error

// settledFunc tells of each report of a kind whether it is known already and
// changes nothing. It reads once for all of them.
type settledFunc func(tx *store.Tx, list []hostApplied) ([]bool, error)

type hostApplied struct {
	host string
	*feed.Applied
}

type hostReport struct {
	host    string
	applied []*feed.Applied
}

// Reports on about so many objects are stored in one transaction: few enough
// that the API, whose transactions it takes turns with, does not wait for long.
const reportsAtOnce = 100

// OnApplied takes hosts' reports on a kind of object; set before Start.
func (h *Hub) OnApplied(kind feed.Kind, f AppliedFunc) { h.applied[kind] = f }

// Report stores what a host did with objects. Hosts tell all that they have
// done each time that they attach: what is known already is only read.
func (h *Hub) Report(ctx context.Context, host string, applied []*feed.Applied) error {
	news, err := h.news(ctx, host, applied)
	if err != nil || len(news) == 0 {
		return err
	}
	return h.reports.ask(ctx, hostReport{host, news})
}

// news are those of a host's reports that may change something.
func (h *Hub) news(ctx context.Context, host string, applied []*feed.Applied) ([]*feed.Applied, error) {
	byKind := map[feed.Kind][]hostApplied{}
	var news []*feed.Applied
	for _, a := range applied {
		switch {
		case h.settled[a.Kind] != nil:
			byKind[a.Kind] = append(byKind[a.Kind], hostApplied{host, a})
		case h.applied[a.Kind] != nil:
			news = append(news, a)
		}
	}
	if len(byKind) == 0 {
		return news, nil
	}
	err := h.store.View(ctx, func(tx *store.Tx) error {
		for kind, list := range byKind {
			known, err := h.settled[kind](tx, list)
			if err != nil {
				return err
			}
			for i, a := range list {
				if !known[i] {
					news = append(news, a.Applied)
				}
			}
		}
		return nil
	})
	return news, err
}

func (h *Hub) storeReports(ctx context.Context, reports []hostReport) []error {
	return alone(reports, func(list []hostReport) error {
		return h.store.Tx(ctx, func(tx *store.Tx) error {
			for _, r := range list {
				for _, a := range r.applied {
					if f := h.applied[a.Kind]; f != nil {
						if err := f(ctx, tx, r.host, a); err != nil {
							return err
						}
					}
				}
			}
			return nil
		})
	})
}

// settledPorts are reports on ports that change nothing.
func settledPorts(ports *port.Service) settledFunc {
	statuses := map[feed.State]string{feed.State_STATE_ACTIVE: port.StatusActive, feed.State_STATE_DOWN: port.StatusDown, feed.State_STATE_ERROR: port.StatusError}
	return func(tx *store.Tx, list []hostApplied) ([]bool, error) {
		words := make([]port.Word, len(list))
		for i, a := range list {
			words[i] = port.Word{Host: a.host, Applied: port.Applied{ID: a.Id, Generation: a.Revision, AgentType: a.AgentType, Status: statuses[a.State]}}
		}
		return ports.Known(tx, words)
	}
}
