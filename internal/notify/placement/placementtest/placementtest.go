// Package placementtest is a Placement for tests: it keeps providers, traits,
// inventories and allocations with their generations, and records requests.
//
// It must not know who asks.
package placementtest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"isospin/internal/notify/cloud/cloudtest"
)

// Provider is a resource provider.
type Provider struct {
	Name        string                    `json:"name"`
	Parent      string                    `json:"parent_provider_uuid"`
	Generation  int                       `json:"generation"`
	Traits      []string                  `json:"traits"`
	Inventories map[string]map[string]any `json:"inventories"`
}

// Consumer is an instance with its allocations, by provider and class.
type Consumer struct {
	Generation  int
	Allocations map[string]map[string]int64
}

// Placement is a cloud of that one service.
type Placement struct {
	*cloudtest.Cloud

	mu        sync.Mutex
	providers map[string]*Provider
	consumers map[string]*Consumer
	traits    map[string]bool
	// capacity is the most that all consumers may have together, by provider and class.
	capacity map[string]map[string]int64
	away     bool
	// forbidden is what requests are refused with; empty: they are not.
	forbidden string
	// overtake is the number of changes that are still to be answered with a
	// conflict of generations.
	overtake int
}

// New starts a Placement that has the compute nodes that are named. Its end is the test's.
func New(t testing.TB, hypervisors ...string) *Placement {
	p := &Placement{providers: map[string]*Provider{}, consumers: map[string]*Consumer{}, traits: map[string]bool{}, capacity: map[string]map[string]int64{}}
	for _, name := range hypervisors {
		p.providers[Root(name)] = &Provider{Name: name}
	}
	p.Cloud = cloudtest.New(t, "placement", p.answer)
	return p
}

// Root is the id of a compute node.
func Root(hypervisor string) string { return fmt.Sprintf("root-of-%s", hypervisor) }

// Config is the section that reaches Placement, which tries once.
func (p *Placement) Config() string {
	return p.Cloud.Config("placement") + "[DEFAULT]\nhttp_retries = 0\n"
}

// Away makes Placement answer 503, or no longer.
func (p *Placement) Away(away bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = away
}

// Forbid makes Placement answer 403 with a text, or with an empty one no longer.
func (p *Placement) Forbid(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forbidden = text
}

// Overtake has the next changes of providers and allocations refused as if
// others had made some in between.
func (p *Placement) Overtake(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.overtake = n
}

// Add adds a compute node.
func (p *Placement) Add(hypervisor string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.providers[Root(hypervisor)] = &Provider{Name: hypervisor}
}

// Consume allocates to a consumer.
func (p *Placement) Consume(consumer, provider string, amounts map[string]int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.consumers[consumer] == nil {
		p.consumers[consumer] = &Consumer{Generation: 1, Allocations: map[string]map[string]int64{}}
	}
	p.consumers[consumer].Allocations[provider] = amounts
}

// Limit is the most of a class that a provider has.
func (p *Placement) Limit(provider, class string, most int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.capacity[provider] = map[string]int64{class: most}
}

// Consumed is what a consumer has, as JSON by provider and class.
func (p *Placement) Consumed(consumer string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.consumers[consumer] == nil {
		return ""
	}
	return text(p.consumers[consumer].Allocations)
}

// Provider returns a copy of a provider; false: there is none.
func (p *Placement) Provider(id string) (Provider, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	have, ok := p.providers[id]
	if !ok {
		return Provider{}, false
	}
	return *have, true
}

// Writes are the requests so far that changed something, as "METHOD path".
func (p *Placement) Writes() []string {
	var list []string
	for _, r := range p.Requests() {
		if r.Method != http.MethodGet {
			list = append(list, r.Method+" "+r.Path)
		}
	}
	return list
}

func text(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(raw)
}

func refuse(status int, code string) (int, string) {
	return status, text(map[string]any{"errors": []any{map[string]any{"status": status, "code": code, "detail": "refused by the test"}}})
}

func (p *Placement) answer(r cloudtest.Request) (int, string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.away {
		return http.StatusServiceUnavailable, ""
	}
	if p.forbidden != "" {
		return http.StatusForbidden, p.forbidden
	}
	if v := r.Header.Get("OpenStack-API-Version"); v != "placement 1.29" {
		return refuse(http.StatusNotAcceptable, "placement.undefined_code")
	}
	u, err := url.Parse(r.Path)
	if err != nil {
		return http.StatusBadRequest, err.Error()
	}
	parts := strings.Split(strings.Trim(u.Path, "/"), "/")
	switch parts[0] {
	case "traits":
		p.traits[parts[1]] = true
		return http.StatusCreated, ""
	case "allocations":
		return p.answerAllocations(r, parts[1])
	case "resource_providers":
		if len(parts) == 1 {
			return p.answerProviders(r, u.Query().Get("name"))
		}
	default:
		return http.StatusNotFound, ""
	}
	have := p.providers[parts[1]]
	if have == nil {
		return refuse(http.StatusNotFound, "placement.undefined_code")
	}
	if len(parts) == 2 {
		if r.Method == http.MethodPut {
			if err := json.Unmarshal([]byte(r.Body), have); err != nil {
				return http.StatusBadRequest, err.Error()
			}
			have.Generation++
		}
		return http.StatusOK, text(have)
	}
	if r.Method == http.MethodPut {
		var b struct {
			Generation  int                       `json:"resource_provider_generation"`
			Traits      []string                  `json:"traits"`
			Inventories map[string]map[string]any `json:"inventories"`
		}
		if err := json.Unmarshal([]byte(r.Body), &b); err != nil {
			return http.StatusBadRequest, err.Error()
		}
		if p.overtake > 0 {
			p.overtake--
			have.Generation++
		}
		if b.Generation != have.Generation {
			return refuse(http.StatusConflict, "placement.concurrent_update")
		}
		have.Generation++
		if parts[2] == "traits" {
			if slices.ContainsFunc(b.Traits, func(t string) bool { return !p.traits[t] }) {
				return refuse(http.StatusBadRequest, "placement.undefined_code")
			}
			have.Traits = b.Traits
		} else {
			for _, i := range b.Inventories {
				if i["max_unit"] == nil {
					i["max_unit"] = 2147483647
				}
			}
			have.Inventories = b.Inventories
		}
	}
	return http.StatusOK, text(map[string]any{"resource_provider_generation": have.Generation, "traits": have.Traits, "inventories": have.Inventories})
}

func (p *Placement) answerProviders(r cloudtest.Request, name string) (int, string) {
	if r.Method == http.MethodPost {
		var b struct{ UUID, Name, Parent string }
		var parent struct {
			Parent string `json:"parent_provider_uuid"`
		}
		if err := json.Unmarshal([]byte(r.Body), &b); err != nil {
			return http.StatusBadRequest, err.Error()
		}
		if err := json.Unmarshal([]byte(r.Body), &parent); err != nil || p.providers[parent.Parent] == nil {
			return refuse(http.StatusBadRequest, "placement.undefined_code")
		}
		if p.providers[b.UUID] != nil {
			return refuse(http.StatusConflict, "placement.undefined_code")
		}
		p.providers[b.UUID] = &Provider{Name: b.Name, Parent: parent.Parent}
		return http.StatusOK, text(p.providers[b.UUID])
	}
	list := []map[string]string{}
	for id, have := range p.providers {
		if have.Name == name {
			list = append(list, map[string]string{"uuid": id, "name": name})
		}
	}
	return http.StatusOK, text(map[string]any{"resource_providers": list})
}

func (p *Placement) answerAllocations(r cloudtest.Request, id string) (int, string) {
	type one struct {
		Resources map[string]int64 `json:"resources"`
	}
	have := p.consumers[id]
	if r.Method == http.MethodGet {
		if have == nil {
			return http.StatusOK, `{"allocations": {}}`
		}
		all := map[string]one{}
		for provider, amounts := range have.Allocations {
			all[provider] = one{amounts}
		}
		return http.StatusOK, text(map[string]any{"allocations": all, "project_id": "p", "user_id": "u", "consumer_generation": have.Generation})
	}
	var b struct {
		Allocations map[string]one `json:"allocations"`
		Generation  *int           `json:"consumer_generation"`
		ProjectID   string         `json:"project_id"`
		UserID      string         `json:"user_id"`
	}
	if err := json.Unmarshal([]byte(r.Body), &b); err != nil || b.ProjectID != "p" || b.UserID != "u" {
		return http.StatusBadRequest, fmt.Sprint(err)
	}
	if p.overtake > 0 {
		p.overtake--
		have.Generation++
	}
	if b.Generation == nil || *b.Generation != have.Generation {
		return refuse(http.StatusConflict, "placement.concurrent_update")
	}
	wanted := map[string]map[string]int64{}
	for provider, a := range b.Allocations {
		wanted[provider] = a.Resources
		for class, n := range a.Resources {
			total := n
			for other, c := range p.consumers {
				if other != id {
					total += c.Allocations[provider][class]
				}
			}
			if most, limited := p.capacity[provider][class]; limited && total > most {
				return refuse(http.StatusConflict, "placement.undefined_code")
			}
		}
	}
	have.Allocations = wanted
	have.Generation++
	return http.StatusNoContent, ""
}
