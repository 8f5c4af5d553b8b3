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
		case h.takenTogether(a.Kind):
			if _, sensible := portStatuses[a.State]; !sensible {
				continue
			}
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
			known, err := h.together[kind].known(tx, list)
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

func (h *Hub) takenTogether(kind feed.Kind) bool {
	_, is := h.together[kind]
	return is
}

func (h *Hub) storeReports(ctx context.Context, reports []hostReport) []error {
	return alone(reports, func(list []hostReport) error {
		return h.store.Tx(ctx, func(tx *store.Tx) error {
			byKind := map[feed.Kind][]hostApplied{}
			for _, r := range list {
				for _, a := range r.applied {
					if h.takenTogether(a.Kind) {
						byKind[a.Kind] = append(byKind[a.Kind], hostApplied{r.host, a})
					} else if f := h.applied[a.Kind]; f != nil {
						if err := f(ctx, tx, r.host, a); err != nil {
							return err
						}
					}
				}
			}
			for kind, list := range byKind {
				if err := h.together[kind].store(ctx, tx, list); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// portReports takes hosts' reports on ports.
type portReports struct{ ports *port.Service }

var portStatuses = map[feed.State]string{feed.State_STATE_ACTIVE: port.StatusActive, feed.State_STATE_DOWN: port.StatusDown, feed.State_STATE_ERROR: port.StatusError}

// known tells of each report whether it changes nothing.
func (p portReports) known(tx *store.Tx, list []hostApplied) ([]bool, error) {
	return p.ports.Known(tx, wordsOf(list))
}

func (p portReports) store(ctx context.Context, tx *store.Tx, list []hostApplied) error {
	return p.ports.ReportAll(ctx, tx, wordsOf(list))
}

func wordsOf(list []hostApplied) []port.Word {
	words := make([]port.Word, len(list))
	for i, a := range list {
		words[i] = port.Word{Host: a.host, Applied: port.Applied{ID: a.Id, Generation: a.Revision, AgentType: a.AgentType, Status: portStatuses[a.State]}}
	}
	return words
}
