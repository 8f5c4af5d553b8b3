package api

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	message "isospin/api/feed"
	"isospin/internal/feed"
	"isospin/internal/identity/keystone/keystonetest"
	"isospin/internal/notify/placement/placementtest"
	"isospin/internal/store"
	"isospin/internal/store/storetest"
	"isospin/test/servertest"
)

// TestScripts plays testdata/*.api, each against a server of its own.
//
//	## heading                        a subtest; those of a file run in order
//	POST /networks {"network": {}}    a request; lines that begin with a space go on with it
//	If-Match: revision_number=1       a header of it
//	201 {"network": {"id": "$n"}}     status and body, or
//	409 NetworkInUse Unable to …      status, type and message of an error; a status alone: no body
//	rows: network +1 ~1 -1, port +1   what became of the tables since the heading or the last "rows:"
//	events: create network $n, …      and which events there were
//	attach h1 10.0.0.1                a host attaches to the feed; with "router" behind, it
//	                                  also carries routers, with "dvr" says to be of Neutron's kind
//	                                  that has a part of each distributed one
//	report h1 $port ACTIVE dhcp       and reports on a port, as its Open vSwitch (default) or DHCP agent
//	report h1 trunk:$trunk ERROR      or on a trunk
//	placement h1                      at the top: there is a Placement, with that compute node;
//	placement consume ID PROVIDER CLASS N   allocates to an instance there; "limit PROVIDER
//	                                  CLASS N", "overtake N" and "forbid TEXT" are as in placementtest
//	config [ml2] x = y                at the top: configuration of the server
//	caller NAME PROJECT ROLE,ROLE     at the top: Keystone decides who calls, and NAME is
//	                                  a token: "X-Auth-Token: NAME". Without one, it is admin's.
//	                                  PROJECT "-": a token of the whole system.
//
// A request that begins with ~ is repeated until its answer is as expected.
// Of an object, the answer must have the members that are written; of a list,
// exactly the items, in any order when the first is "~". "$name" is what it
// was when it first came; "*" is anything, "!" that there is no such member.
// "$long" is a text of 4,096 characters.
//
// An answer "?" is replaced in the file by the error that came, by
//
//	go test ./test/api -run TestScripts -update
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.api")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	var errors errorLog
	var played atomic.Int32
	t.Cleanup(func() { // after all that run in parallel
		if int(played.Load()) == len(files) && !t.Failed() {
			errors.check(t)
		}
	})
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".api"), func(t *testing.T) {
			t.Parallel()
			play(t, file, &errors)
			played.Add(1)
		})
	}
}

var update = flag.Bool("update", false, "write what the tests found into the files that they compare with")

type player struct {
	whole *testing.T // of the file: hosts stay attached from one heading to the next
	*servertest.Server
	vars   map[string]string
	hosts  map[string]*servertest.Host
	rows   map[string]map[string]string
	events int64
	file   string
	errors *errorLog
	filled map[int]string // answers to be written into the file, by line
	cloud  bool           // callers have tokens
	// placement is that of the scripts that have one.
	placement *placementtest.Placement
}

type step struct {
	line int
	text string // continued lines joined
}

func play(t *testing.T, file string, errors *errorLog) {
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var conf strings.Builder
	var cloud *keystonetest.Keystone
	var scheduler *placementtest.Placement
	type section struct {
		title string
		steps []step
	}
	var sections []section
	for i, line := range strings.Split(string(raw), "\n") {
		switch {
		case strings.TrimSpace(line) == "" || strings.HasPrefix(line, "# "):
		case strings.HasPrefix(line, "config "):
			conf.WriteString(strings.Replace(strings.TrimPrefix(line, "config "), "] ", "]\n", 1) + "\n")
		case strings.HasPrefix(line, "placement ") && len(sections) == 0:
			scheduler = placementtest.New(t, strings.Fields(line)[1:]...)
			conf.WriteString(scheduler.Config())
		case strings.HasPrefix(line, "caller "):
			words := strings.Fields(line)
			if len(words) != 4 {
				t.Fatalf("%s:%d: want: caller NAME PROJECT ROLE,ROLE", file, i+1)
			}
			if cloud == nil {
				cloud = keystonetest.Start(t)
				cloud.Add("admin", keystonetest.Token{UserID: "admin", ProjectID: "fake_project_id", Roles: []string{"admin", "manager", "member", "reader"}})
				conf.WriteString(cloud.Config())
			}
			cloud.Add(words[1], keystonetest.Token{UserID: words[1], ProjectID: strings.TrimSuffix(words[2], "-"), System: words[2] == "-", Roles: strings.Split(words[3], ",")})
		case strings.HasPrefix(line, "## "):
			sections = append(sections, section{title: line[3:]})
		case len(sections) == 0:
			t.Fatalf("%s:%d: before the first heading", file, i+1)
		default:
			s := &sections[len(sections)-1]
			if line[0] == ' ' && len(s.steps) > 0 {
				s.steps[len(s.steps)-1].text += "\n" + line
				continue
			}
			s.steps = append(s.steps, step{i + 1, line})
		}
	}
	p := &player{whole: t, Server: servertest.Start(t, servertest.Networks+conf.String()), vars: map[string]string{"$long": strings.Repeat("x", 4096)}, hosts: map[string]*servertest.Host{}, file: file, errors: errors, filled: map[int]string{}, cloud: cloud != nil, placement: scheduler}
	defer p.write(t)
	for _, s := range sections {
		if !t.Run(s.title, func(t *testing.T) { p.section(t, s.steps) }) && !*update {
			return // what follows builds upon it
		}
	}
	for _, h := range p.hosts {
		if err := h.Faults(); err != nil {
			t.Error(err)
		}
		p.Settle(t)
		servertest.Eventually(t, "host "+h.Name+" holds what the hub says", func() bool { return h.Differs() == "" })
		h.Detach()
	}
}

var (
	variable = regexp.MustCompile(`\$[a-z][a-zA-Z0-9]*`)
	header   = regexp.MustCompile(`^[A-Z][A-Za-z-]+: `)
	status   = regexp.MustCompile(`^([0-9]{3}( |$)|\?$)`)
)

func (p *player) expand(s string) string {
	return variable.ReplaceAllStringFunc(s, func(v string) string {
		if have, ok := p.vars[v]; ok {
			return have
		}
		return v
	})
}

func (p *player) section(t *testing.T, steps []step) {
	if slices.ContainsFunc(steps, func(s step) bool { return strings.HasPrefix(s.text, "rows:") }) {
		p.rows = p.snapshot(t)
	}
	p.events = p.LastSequence(t)
	for i := 0; i < len(steps); i++ {
		s := steps[i]
		word, rest, _ := strings.Cut(s.text, " ")
		at := fmt.Sprintf("%s:%d: %s", p.file, s.line, strings.Split(s.text, "\n")[0])
		switch word {
		case "rows:":
			now := p.snapshot(t)
			if have, want := diffOf(p.rows, now), normal(rest); have != want {
				t.Errorf("%s\nchanged: %s", at, have)
			}
			p.rows = now
		case "events:":
			p.checkEvents(t, at, rest)
		case "attach":
			words := append(strings.Fields(rest), "", "")
			name := words[0]
			functions := []*message.Function{servertest.OpenVSwitch(words[1]), {AgentType: "DHCP agent", Binary: "neutron-dhcp-agent", Topic: "N/A", AvailabilityZone: "nova", Configurations: `{}`}}
			if mode := map[string]string{"router": "legacy", "dvr": "dvr"}[words[2]]; mode != "" {
				functions = append(functions, &message.Function{AgentType: "L3 agent", Binary: "neutron-l3-agent", Topic: "l3_agent", AvailabilityZone: "nova", Configurations: fmt.Sprintf(`{"agent_mode": %q}`, mode)})
			}
			h := p.Host(name, functions...)
			h.Attach(p.whole)
			p.hosts[name] = h
		case "placement":
			p.place(t, at, strings.Fields(p.expand(rest)))
		case "report":
			p.report(t, at, strings.Fields(rest))
		default:
			var headers []string
			for i++; i < len(steps) && header.MatchString(steps[i].text) && !status.MatchString(steps[i].text); i++ {
				headers = append(headers, p.expand(steps[i].text))
			}
			if i == len(steps) || !status.MatchString(steps[i].text) {
				t.Fatalf("%s: no answer follows", at)
			}
			if p.cloud && !slices.ContainsFunc(headers, func(h string) bool { return strings.HasPrefix(h, "X-Auth-Token:") }) {
				headers = append(headers, "X-Auth-Token: admin")
			}
			if steps[i].text == "?" && *update {
				p.fill(t, at, s.text, headers, steps[i].line)
				continue
			}
			p.request(t, at, s.text, headers, steps[i].text)
		}
	}
}

// fill makes a request and keeps the error that came for the file.
func (p *player) fill(t *testing.T, at, request string, headers []string, line int) {
	method, rest, _ := strings.Cut(request, " ")
	path, body, _ := strings.Cut(rest, " ")
	a, err := p.Do(method, p.expand(path), p.expand(body), headers...)
	if err != nil {
		t.Fatalf("%s: %v", at, err)
	}
	typ, message := a.Error()
	if a.Status < http.StatusBadRequest || typ == "" {
		t.Errorf("%s: is no error: %s", at, a)
		return
	}
	for name, value := range p.vars {
		if len(value) == len("00000000-0000-4000-8000-000000000000") {
			message = strings.ReplaceAll(message, value, name)
		}
	}
	p.filled[line] = fmt.Sprintf("%d %s %s", a.Status, typ, message)
}

// write puts the answers that were missing into the file.
func (p *player) write(t *testing.T) {
	if len(p.filled) == 0 {
		return
	}
	raw, err := os.ReadFile(p.file)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(raw), "\n")
	for line, text := range p.filled {
		lines[line-1] = strings.ReplaceAll(text, "\n", "\\n")
	}
	if err := os.WriteFile(p.file, []byte(strings.Join(lines, "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (p *player) request(t *testing.T, at, request string, headers []string, answer string) {
	request, patient := strings.CutPrefix(request, "~")
	method, rest, _ := strings.Cut(request, " ")
	path, body, _ := strings.Cut(rest, " ")
	path, body = p.expand(path), p.expand(body)
	deadline := time.Now().Add(10 * time.Second)
	for {
		a, err := p.Do(method, path, body, headers...)
		if err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		vars := maps.Clone(p.vars)
		wrong := p.compare(a, answer)
		if wrong == "" {
			if a.Status >= http.StatusBadRequest {
				typ, message := a.Error()
				p.errors.add(a.Status, typ, message)
			}
			return
		}
		p.vars = vars
		if !patient || time.Now().After(deadline) {
			t.Fatalf("%s\n%s\nwant: %s\ngot:  %s", at, wrong, p.expand(answer), a)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (p *player) compare(a *servertest.Answer, want string) string {
	code, rest, _ := strings.Cut(want, " ")
	rest = strings.TrimSpace(rest)
	if strconv.Itoa(a.Status) != code {
		return "another status"
	}
	switch {
	case rest == "":
		if len(a.Body) > 0 {
			return "there is a body"
		}
	case rest[0] == '{', rest[0] == '[', rest == "null":
		var have, expected any
		if err := json.Unmarshal([]byte(rest), &expected); err != nil {
			return fmt.Sprintf("the expected body is no JSON: %v", err)
		}
		if err := a.Decode(&have); err != nil {
			return err.Error()
		}
		return p.match("", expected, have)
	default:
		typ, message := a.Error()
		if have := typ + " " + strings.ReplaceAll(message, "\n", `\n`); have != p.expand(rest) {
			return "another error: " + have
		}
	}
	return ""
}

// match tells how what there is differs from what is wanted.
func (p *player) match(at string, want, have any) string {
	switch want := want.(type) {
	case string:
		if want == "*" {
			return ""
		}
		text, isText := have.(string)
		if variable.FindString(want) == want && want != "" {
			if _, known := p.vars[want]; !known {
				if !isText {
					text = fmt.Sprint(have)
				}
				p.vars[want] = text
				return ""
			}
		}
		if expanded := p.expand(want); !isText || text != expanded {
			return fmt.Sprintf("%s is %v, want %q", at, have, expanded)
		}
	case map[string]any:
		object, ok := have.(map[string]any)
		if !ok {
			return fmt.Sprintf("%s is %v, want an object", at, have)
		}
		for _, k := range slices.Sorted(maps.Keys(want)) {
			v, there := object[k]
			if want[k] == "!" {
				if there {
					return fmt.Sprintf("%s.%s is there", at, k)
				}
				continue
			}
			if !there {
				return fmt.Sprintf("%s.%s is missing", at, k)
			}
			if wrong := p.match(at+"."+k, want[k], v); wrong != "" {
				return wrong
			}
		}
	case []any:
		list, ok := have.([]any)
		if !ok {
			return fmt.Sprintf("%s is %v, want a list", at, have)
		}
		if len(want) > 0 && want[0] == "~" {
			return p.matchAnyOrder(at, want[1:], list)
		}
		if len(list) != len(want) {
			return fmt.Sprintf("%s has %d items, want %d", at, len(list), len(want))
		}
		for i := range want {
			if wrong := p.match(fmt.Sprintf("%s[%d]", at, i), want[i], list[i]); wrong != "" {
				return wrong
			}
		}
	case nil:
		if have != nil {
			return fmt.Sprintf("%s is %v, want null", at, have)
		}
	default:
		if want != have {
			return fmt.Sprintf("%s is %v, want %v", at, have, want)
		}
	}
	return ""
}

func (p *player) matchAnyOrder(at string, want, list []any) string {
	if len(list) != len(want) {
		return fmt.Sprintf("%s has %d items, want %d", at, len(list), len(want))
	}
	left := slices.Clone(list)
next:
	for i, w := range want {
		for j, have := range left {
			vars := maps.Clone(p.vars)
			if p.match("", w, have) == "" {
				left = slices.Delete(left, j, j+1)
				continue next
			}
			p.vars = vars
		}
		return fmt.Sprintf("%s: no item is as the wanted %d", at, i)
	}
	return ""
}

func (p *player) checkEvents(t *testing.T, at, want string) {
	var have []string
	err := p.Store.View(t.Context(), func(tx *store.Tx) error {
		events, err := tx.Events(p.events, 10000)
		for _, e := range events {
			have = append(have, fmt.Sprintf("%s %s %s", e.Op, e.Kind, e.ID))
			p.events = e.Sequence
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	if want = strings.TrimSpace(strings.ReplaceAll(want, "\n", " ")); want != "" && want != "none" {
		list = strings.Split(want, ",")
	}
	ok := len(list) == len(have)
	for i := range list {
		fields := strings.Fields(list[i])
		ok = ok && len(fields) == 3
		if !ok {
			break
		}
		got := strings.Fields(have[i])
		if v := fields[2]; strings.HasPrefix(v, "$") && p.vars[v] == "" {
			p.vars[v] = got[2]
		}
		ok = fields[0] == got[0] && fields[1] == got[1] && (fields[2] == "*" || p.expand(fields[2]) == got[2])
		if !ok {
			break
		}
	}
	if !ok {
		t.Errorf("%s\nevents: %s", p.expand(at), strings.Join(have, ", "))
	}
}

// place changes what Placement has.
func (p *player) place(t *testing.T, at string, words []string) {
	number := func(i int) int64 {
		n, err := strconv.ParseInt(words[i], 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		return n
	}
	words = append(words, "", "", "", "", "")
	switch words[0] {
	case "consume":
		p.placement.Consume(words[1], words[2], map[string]int64{words[3]: number(4)})
	case "limit":
		p.placement.Limit(words[1], words[2], number(3))
	case "overtake":
		p.placement.Overtake(int(number(1)))
	case "forbid":
		p.placement.Forbid(strings.TrimSpace(strings.Join(words[1:], " ")))
	default:
		t.Fatalf("%s: no such word", at)
	}
}

func (p *player) report(t *testing.T, at string, words []string) {
	h := p.hosts[words[0]]
	if h == nil || len(words) < 3 {
		t.Fatalf("%s: want: report HOST PORT STATE [dhcp]", at)
	}
	state := message.State(message.State_value["STATE_"+words[2]])
	if id, trunk := strings.CutPrefix(p.expand(words[1]), "trunk:"); trunk {
		held := func() *message.Object { return h.Objects()[feed.Key{Kind: message.Kind_KIND_TRUNK, ID: id}] }
		p.Settle(t)
		servertest.Eventually(t, h.Name+" has trunk "+id, func() bool { return held() != nil && h.Differs() == "" })
		if err := h.Report(&message.Applied{Kind: message.Kind_KIND_TRUNK, Id: id, Revision: held().GetTrunk().GetRevision(), AgentType: "Open vSwitch agent", State: state}); err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		return
	}
	id := p.expand(words[1])
	servertest.Eventually(t, h.Name+" has port "+id, func() bool { return h.Port(id) != nil })
	agentType := "Open vSwitch agent"
	if len(words) > 3 && words[3] == "dhcp" {
		agentType = "DHCP agent"
	}
	p.Settle(t)
	var revision int64
	servertest.Eventually(t, h.Name+" has the newest port "+id, func() bool {
		revision = h.Port(id).GetRevision()
		return h.Differs() == ""
	})
	if err := h.Report(&message.Applied{Kind: message.Kind_KIND_PORT, Id: id, Revision: revision, AgentType: agentType, State: state}); err != nil {
		t.Fatalf("%s: %v", at, err)
	}
}

// snapshot reads all tables but the events': table → primary key → row.
func (p *player) snapshot(t *testing.T) map[string]map[string]string {
	t.Helper()
	return storetest.Rows(t, p.Connection)
}

func diffOf(before, after map[string]map[string]string) string {
	var parts []string
	for _, table := range slices.Sorted(maps.Keys(after)) {
		added, changed, removed := 0, 0, 0
		for k, v := range after[table] {
			if was, there := before[table][k]; !there {
				added++
			} else if was != v && table != "agent" { // heartbeats come at any time
				changed++
			}
		}
		for k := range before[table] {
			if _, there := after[table][k]; !there {
				removed++
			}
		}
		words := []string{table}
		for _, n := range []struct {
			sign string
			n    int
		}{{"+", added}, {"~", changed}, {"-", removed}} {
			if n.n > 0 {
				words = append(words, n.sign+strconv.Itoa(n.n))
			}
		}
		if len(words) > 1 {
			parts = append(parts, strings.Join(words, " "))
		}
	}
	if parts == nil {
		return "none"
	}
	return strings.Join(parts, ", ")
}

func normal(s string) string {
	parts := strings.Split(s, ",")
	for i, part := range parts {
		parts[i] = strings.Join(strings.Fields(part), " ")
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}
