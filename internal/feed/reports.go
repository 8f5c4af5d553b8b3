package feed

import (
	"context"
	"slices"

	"isospin/api/feed"
	"isospin/internal/core/agent"
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
	attached
	applied []*feed.Applied
}

// Reports on about so many objects are compared with what is known at once, and
// of those that are news so many are stored in one transaction: few enough that
// the API, whose transactions it takes turns with, does not wait for long.
const (
	comparedAtOnce = 2000
	storedAtOnce   = 400
)

// OnApplied takes hosts' reports on a kind of object; set before Start.
func (h *Hub) OnApplied(kind feed.Kind, f AppliedFunc) { h.applied[kind] = f }

// Report stores what a host did with objects. Hosts tell all that they have
// done each time that they attach: what is known already is only read.
func (h *Hub) Report(ctx context.Context, host string, applied []*feed.Applied) error {
	if len(applied) == 0 {
		return nil
	}
	return h.reports.ask(ctx, hostReport{attached{host: host}, applied})
}

// reportOver is Report of what a host said over an attachment: agent.ErrDetached
// when there has been another since, and it would be news.
func (h *Hub) reportOver(ctx context.Context, from attached, applied []*feed.Applied) error {
	if len(applied) == 0 {
		return nil
	}
	return h.reports.ask(ctx, hostReport{from, applied})
}

// stillAttached is the fence of the transaction that stores reports.
func (h *Hub) stillAttached(tx *store.Tx, list []hostReport) error {
	var hosts []string
	for _, r := range list {
		if r.attachment != 0 && len(r.applied) > 0 {
			hosts = append(hosts, r.host)
		}
	}
	if len(hosts) == 0 {
		return nil
	}
	present, err := h.attachments(tx, hosts...)
	if err != nil {
		return err
	}
	for _, r := range list {
		if r.attachment != 0 && len(r.applied) > 0 && present[r.host] != r.attachment {
			return agent.ErrDetached
		}
	}
	return nil
}

// news leaves of reports what may change something.
func (h *Hub) news(ctx context.Context, reports []hostReport) ([]hostReport, error) {
	type place struct{ report, at int }
	byKind, places := map[feed.Kind][]hostApplied{}, map[feed.Kind][]place{}
	left := make([]hostReport, len(reports))
	for i, r := range reports {
		left[i] = hostReport{r.attached, slices.Clone(r.applied)}
		for j, a := range r.applied {
			switch {
			case !h.takenTogether(a.Kind):
				if h.applied[a.Kind] == nil {
					left[i].applied[j] = nil
				}
			case portStatuses[a.State] == "":
				left[i].applied[j] = nil
			default:
				byKind[a.Kind] = append(byKind[a.Kind], hostApplied{r.host, a})
				places[a.Kind] = append(places[a.Kind], place{i, j})
			}
		}
	}
	if len(byKind) > 0 {
		err := h.store.View(ctx, func(tx *store.Tx) error {
			for kind, list := range byKind {
				known, err := h.together[kind].known(tx, list)
				if err != nil {
					return err
				}
				for i, at := range places[kind] {
					if known[i] {
						left[at.report].applied[at.at] = nil
					}
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	for i := range left {
		left[i].applied = slices.DeleteFunc(left[i].applied, func(a *feed.Applied) bool { return a == nil })
	}
	return left, nil
}

// storeReports returns an error for each report that could not be stored, or nil.
func (h *Hub) storeReports(ctx context.Context, reports []hostReport) []error {
	errs := make([]error, len(reports))
	left, err := h.news(ctx, reports)
	if err != nil {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	for first := 0; first < len(left); {
		last, size := first, 0
		for last < len(left) && (last == first || size+len(left[last].applied) <= storedAtOnce) {
			size += len(left[last].applied)
			last++
		}
		if size > 0 {
			copy(errs[first:], alone(left[first:last], func(list []hostReport) error { return h.storeNews(ctx, list) }))
		}
		first = last
	}
	return errs
}

// storeNews stores reports in one transaction.
func (h *Hub) storeNews(ctx context.Context, list []hostReport) error {
	return h.store.Tx(ctx, func(tx *store.Tx) error {
		if err := h.stillAttached(tx, list); err != nil {
			return err
		}
		byKind := map[feed.Kind][]hostApplied{}
		for _, r := range list {
			for _, a := range r.applied {
				if h.takenTogether(a.Kind) {
					byKind[a.Kind] = append(byKind[a.Kind], hostApplied{r.host, a})
				} else if err := h.applied[a.Kind](ctx, tx, r.host, a); err != nil {
					return err
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
}

func (h *Hub) takenTogether(kind feed.Kind) bool {
	_, is := h.together[kind]
	return is
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
