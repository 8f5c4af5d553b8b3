package vswitch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"isospin/internal/ovs/ovsdb"
)

// EnsureBridge makes a bridge be there, with at least what b says. It changes
// nothing else of a bridge that exists, and returns when ovs-vswitchd has it.
func (c *Client) EnsureBridge(ctx context.Context, b Bridge) error {
	if b.DatapathType == "" {
		b.DatapathType = c.options.DatapathType
	}
	carriedOut, err := c.commit(ctx, func(t ovsdb.Tables) ([]ovsdb.Operation, error) {
		id, row, found := byName(t, "Bridge", b.Name)
		if found {
			set := ovsdb.Row{}
			if b.FailMode != "" && row.String("fail_mode") != b.FailMode {
				set["fail_mode"] = b.FailMode
			}
			// No protocols means all of the default ones.
			if have := row.Strings("protocols"); len(have) > 0 {
				all := have
				for _, p := range b.Protocols {
					if !slices.Contains(have, p) {
						all = append(slices.Clip(all), p)
					}
				}
				if len(all) > len(have) {
					set["protocols"] = stringSet(all)
				}
			}
			return change("Bridge", id, set, merge(row, "external_ids", b.ExternalIDs), merge(row, "other_config", b.OtherConfig)), nil
		}
		row = ovsdb.Row{
			"name": b.Name, "ports": ovsdb.NamedUUID("port"), "datapath_type": b.DatapathType,
			"external_ids": ovsdb.StringMap(b.ExternalIDs), "other_config": ovsdb.StringMap(b.OtherConfig),
			"protocols": stringSet(b.Protocols),
		}
		if b.FailMode != "" {
			row["fail_mode"] = b.FailMode
		}
		return []ovsdb.Operation{
			ovsdb.Insert("Interface", "interface", ovsdb.Row{"name": b.Name, "type": "internal"}),
			ovsdb.Insert("Port", "port", ovsdb.Row{"name": b.Name, "interfaces": ovsdb.NamedUUID("interface")}),
			ovsdb.Insert("Bridge", "bridge", row),
			ovsdb.Mutate("Open_vSwitch", []ovsdb.Mutation{{"bridges", "insert", ovsdb.Set{ovsdb.NamedUUID("bridge")}}}),
		}, nil
	})
	if err != nil {
		return fmt.Errorf("bridge %s: %w", b.Name, err)
	}
	// The bridge's own port shows that ovs-vswitchd took it.
	if err := c.opened(ctx, []Port{{Name: b.Name}}, carriedOut)[b.Name]; err != nil {
		return fmt.Errorf("bridge %s: %w", b.Name, err)
	}
	return nil
}

// DeleteBridge removes a bridge with its ports. Absent is success.
func (c *Client) DeleteBridge(ctx context.Context, name string) error {
	_, err := c.commit(ctx, func(t ovsdb.Tables) ([]ovsdb.Operation, error) {
		id, _, found := byName(t, "Bridge", name)
		if !found {
			return nil, nil
		}
		// Rows that nothing refers to are collected by the server.
		return []ovsdb.Operation{ovsdb.Mutate("Open_vSwitch", []ovsdb.Mutation{{"bridges", "delete", ovsdb.Set{id}}})}, nil
	})
	if err != nil {
		return fmt.Errorf("bridge %s: %w", name, err)
	}
	return nil
}

// EnsureVLANTags makes the switch look through at least n VLAN tags of a frame:
// flows find what is behind as many, and what is behind more is out of their
// sight. It never lowers what is there; no limit at all is left as it is.
func (c *Client) EnsureVLANTags(ctx context.Context, n int) error {
	_, err := c.commit(ctx, func(t ovsdb.Tables) ([]ovsdb.Operation, error) {
		for id, row := range t["Open_vSwitch"] {
			have := 1 // as Open vSwitch takes it when nothing is said
			if v, err := strconv.Atoi(row.StringMap("other_config")[vlanLimit]); err == nil {
				have = v
			}
			if have == 0 || have >= n {
				continue
			}
			return change("Open_vSwitch", id, nil, merge(row, "other_config", map[string]string{vlanLimit: strconv.Itoa(n)})), nil
		}
		return nil, nil
	})
	if err != nil {
		return fmt.Errorf("%s of Open vSwitch: %w", vlanLimit, err)
	}
	return nil
}

const vlanLimit = "vlan-limit"

// EnsurePort makes a port be on a bridge, with at least what p says, in one
// transaction, and returns when ovs-vswitchd has given the interface an
// OpenFlow port, or an *InterfaceError. A port of that name on another bridge
// is an error.
func (c *Client) EnsurePort(ctx context.Context, bridge string, p Port) error {
	return c.EnsurePorts(ctx, bridge, []Port{p})
}

// EnsurePorts is EnsurePort for many ports in one transaction. Errors of
// single interfaces are joined: errors.As finds each *InterfaceError.
func (c *Client) EnsurePorts(ctx context.Context, bridge string, ports []Port) error {
	if len(ports) == 0 {
		return nil
	}
	carriedOut, err := c.commit(ctx, func(t ovsdb.Tables) ([]ovsdb.Operation, error) {
		return ensurePorts(t, bridge, ports)
	})
	if err != nil {
		return fmt.Errorf("ports of bridge %s: %w", bridge, err)
	}
	failed := c.opened(ctx, ports, carriedOut)
	names := slices.Sorted(maps.Keys(failed))
	var all []error
	for _, name := range names {
		all = append(all, failed[name])
	}
	return errors.Join(all...)
}

func ensurePorts(t ovsdb.Tables, bridge string, ports []Port) ([]ovsdb.Operation, error) {
	bridgeID, bridgeRow, found := byName(t, "Bridge", bridge)
	if !found {
		return nil, fmt.Errorf("%w: %s", ErrNoBridge, bridge)
	}
	onBridge := map[ovsdb.UUID]bool{}
	for _, id := range bridgeRow.UUIDs("ports") {
		onBridge[id] = true
	}
	var operations []ovsdb.Operation
	added := ovsdb.Set{}
	for n, p := range ports {
		portID, port, found := byName(t, "Port", p.Name)
		if !found {
			ifaceName, portName := ovsdb.NamedUUID(fmt.Sprintf("interface%d", n)), ovsdb.NamedUUID(fmt.Sprintf("port%d", n))
			iface := ovsdb.Row{"name": p.Name, "type": p.Type, "options": ovsdb.StringMap(p.Options), "external_ids": ovsdb.StringMap(p.ExternalIDs)}
			if p.MTURequest != 0 {
				iface["mtu_request"] = p.MTURequest
			}
			row := ovsdb.Row{"name": p.Name, "interfaces": ifaceName, "other_config": ovsdb.StringMap(p.OtherConfig), "external_ids": ovsdb.StringMap(p.PortExternalIDs)}
			if p.Tag != 0 {
				row["tag"] = p.Tag
			}
			if p.Trunks != nil {
				row["trunks"] = integerSet(p.Trunks)
			}
			operations = append(operations, ovsdb.Insert("Interface", string(ifaceName), iface), ovsdb.Insert("Port", string(portName), row))
			added = append(added, portName)
			continue
		}
		if !onBridge[portID] {
			return nil, fmt.Errorf("port %s is on another bridge", p.Name)
		}
		set := ovsdb.Row{}
		if tag, _ := port.Int("tag"); p.Tag != 0 && int(tag) != p.Tag {
			set["tag"] = p.Tag
		}
		if p.Trunks != nil && !slices.Equal(integers(port, "trunks"), p.Trunks) {
			set["trunks"] = integerSet(p.Trunks)
		}
		operations = append(operations, change("Port", portID, set, merge(port, "other_config", p.OtherConfig), merge(port, "external_ids", p.PortExternalIDs))...)
		ids := port.UUIDs("interfaces")
		if len(ids) != 1 {
			return nil, fmt.Errorf("port %s is a bond of %d interfaces", p.Name, len(ids))
		}
		iface := t["Interface"][ids[0]]
		set = ovsdb.Row{}
		if p.Type != "" && iface.String("type") != p.Type {
			set["type"] = p.Type
		}
		if p.Options != nil && !maps.Equal(iface.StringMap("options"), p.Options) {
			set["options"] = ovsdb.StringMap(p.Options)
		}
		if mtu, _ := iface.Int("mtu_request"); p.MTURequest != 0 && int(mtu) != p.MTURequest {
			set["mtu_request"] = p.MTURequest
		}
		operations = append(operations, change("Interface", ids[0], set, merge(iface, "external_ids", p.ExternalIDs))...)
	}
	if len(added) > 0 {
		operations = append(operations, ovsdb.Mutate("Bridge", []ovsdb.Mutation{{"ports", "insert", added}}, ovsdb.Is(bridgeID)))
	}
	return operations, nil
}

// AnnotatePorts merges into the ports' other_config and sets their tags, in
// one transaction, without waiting for ovs-vswitchd. Only Name, OtherConfig,
// InterfaceOtherConfig and Tag are looked at; a port that is not on the bridge
// is left out.
func (c *Client) AnnotatePorts(ctx context.Context, bridge string, ports []Port) error {
	var operations []ovsdb.Operation
	c.db.View(func(t ovsdb.Tables) {
		_, bridgeRow, _ := byName(t, "Bridge", bridge)
		wanted := make(map[string]Port, len(ports))
		for _, p := range ports {
			wanted[p.Name] = p
		}
		for _, id := range bridgeRow.UUIDs("ports") {
			row := t["Port"][id]
			p, ok := wanted[row.String("name")]
			if !ok {
				continue
			}
			set := ovsdb.Row{}
			if tag, _ := row.Int("tag"); p.Tag != 0 && int(tag) != p.Tag {
				set["tag"] = p.Tag
			}
			operations = append(operations, change("Port", id, set, merge(row, "other_config", p.OtherConfig))...)
			for _, i := range row.UUIDs("interfaces") {
				operations = append(operations, change("Interface", i, nil, mergeOrRemove(t["Interface"][i], "other_config", p.InterfaceOtherConfig))...)
			}
		}
	})
	if len(operations) == 0 {
		return nil
	}
	operations = append(operations, increment())
	if _, err := c.db.Transact(ctx, operations...); err != nil {
		return fmt.Errorf("ports of bridge %s: %w", bridge, err)
	}
	return nil
}

// DeletePort removes a port from a bridge. Absent, or on another bridge, is
// success.
func (c *Client) DeletePort(ctx context.Context, bridge, name string) error {
	return c.DeletePorts(ctx, bridge, []string{name})
}

// DeletePorts is DeletePort for many ports in one transaction.
func (c *Client) DeletePorts(ctx context.Context, bridge string, names []string) error {
	_, err := c.commit(ctx, func(t ovsdb.Tables) ([]ovsdb.Operation, error) {
		bridgeID, row, found := byName(t, "Bridge", bridge)
		if !found {
			return nil, nil
		}
		gone := ovsdb.Set{}
		for _, id := range row.UUIDs("ports") {
			if slices.Contains(names, t["Port"][id].String("name")) {
				gone = append(gone, id)
			}
		}
		if len(gone) == 0 {
			return nil, nil
		}
		return []ovsdb.Operation{ovsdb.Mutate("Bridge", []ovsdb.Mutation{{"ports", "delete", gone}}, ovsdb.Is(bridgeID))}, nil
	})
	if err != nil {
		return fmt.Errorf("ports of bridge %s: %w", bridge, err)
	}
	return nil
}

// increment makes ovs-vswitchd, when it has carried out what the database says
// in this transaction, say so in cur_cfg.
func increment() ovsdb.Operation {
	return ovsdb.Mutate("Open_vSwitch", []ovsdb.Mutation{{"next_cfg", "+=", 1}})
}

// commit runs the transaction that plan finds necessary by the view, and waits
// until ovs-vswitchd has carried it out. It tells whether there was anything
// to do. A transaction that failed because the view was old, as when a port
// of that name was made meanwhile, is planned again.
func (c *Client) commit(ctx context.Context, plan func(ovsdb.Tables) ([]ovsdb.Operation, error)) (bool, error) {
	for attempt := 0; ; attempt++ {
		var operations []ovsdb.Operation
		var err error
		c.db.View(func(t ovsdb.Tables) { operations, err = plan(t) })
		if err != nil || len(operations) == 0 {
			return false, err
		}
		operations = append(operations, increment(), ovsdb.Select("Open_vSwitch", []string{"next_cfg"}))
		results, err := c.db.Transact(ctx, operations...)
		var refused *ovsdb.Error
		if errors.As(err, &refused) && attempt < 3 &&
			(refused.Code == "constraint violation" || refused.Code == "referential integrity violation") {
			continue
		}
		if err != nil {
			return false, err
		}
		var next int64
		if rows := results[len(operations)-1].Rows; len(rows) == 1 {
			if _, err := fmt.Sscan(string(rows[0]["next_cfg"]), &next); err != nil {
				return true, fmt.Errorf("next_cfg: %w", err)
			}
		}
		err = c.db.WaitFor(ctx, func(t ovsdb.Tables) bool {
			for _, row := range t["Open_vSwitch"] {
				if current, _ := row.Int("cur_cfg"); current >= next {
					return true
				}
			}
			return false
		})
		if err != nil {
			return true, fmt.Errorf("waiting for ovs-vswitchd: %w", err)
		}
		return true, nil
	}
}

// opened waits until each port's interface has an OpenFlow port or an error,
// and returns the errors by name. With carriedOut, what has neither will not
// get one.
func (c *Client) opened(ctx context.Context, ports []Port, carriedOut bool) map[string]error {
	failed := map[string]error{}
	err := c.db.WaitFor(ctx, func(t ovsdb.Tables) bool {
		clear(failed)
		names := make(map[string]bool, len(ports))
		for _, p := range ports {
			names[p.Name] = true
		}
		for _, row := range t["Interface"] {
			name := row.String("name")
			if !names[name] {
				continue
			}
			delete(names, name)
			ofport, _ := row.Int("ofport")
			switch text := row.String("error"); {
			case ofport > 0:
			case text != "" || ofport < 0:
				failed[name] = &InterfaceError{Interface: name, Text: text}
			case carriedOut:
				failed[name] = &InterfaceError{Interface: name, Text: "ovs-vswitchd did not make it; its log says why"}
			default:
				return false
			}
		}
		for name := range names {
			failed[name] = &InterfaceError{Interface: name, Text: "gone"}
		}
		return true
	})
	if err != nil {
		for _, p := range ports {
			failed[p.Name] = fmt.Errorf("interface %s: waiting for ovs-vswitchd: %w", p.Name, err)
		}
	}
	return failed
}

func byName(t ovsdb.Tables, table, name string) (ovsdb.UUID, ovsdb.Row, bool) {
	for id, row := range t[table] {
		if row.String("name") == name {
			return id, row, true
		}
	}
	return "", nil, false
}

// merge returns the mutations that make a map column hold all of wanted. Other
// keys are left to their writers, even to those that write meanwhile.
func merge(row ovsdb.Row, column string, wanted map[string]string) []ovsdb.Mutation {
	have := row.StringMap(column)
	gone, come := ovsdb.Set{}, ovsdb.Map{}
	for k, v := range wanted {
		old, ok := have[k]
		if ok && old != v {
			gone = append(gone, k) // "insert" does not replace
		}
		if !ok || old != v {
			come[k] = v
		}
	}
	switch {
	case len(come) == 0:
		return nil
	case len(gone) == 0:
		return []ovsdb.Mutation{{column, "insert", come}}
	}
	return []ovsdb.Mutation{{column, "delete", gone}, {column, "insert", come}}
}

// mergeOrRemove is merge, but keys without a value go.
func mergeOrRemove(row ovsdb.Row, column string, wanted map[string]string) []ovsdb.Mutation {
	have := row.StringMap(column)
	gone, come := ovsdb.Set{}, map[string]string{}
	for k, v := range wanted {
		if _, there := have[k]; v == "" && there {
			gone = append(gone, k)
		} else if v != "" {
			come[k] = v
		}
	}
	mutations := merge(row, column, come)
	if len(gone) > 0 {
		mutations = append(mutations, ovsdb.Mutation{column, "delete", gone})
	}
	return mutations
}

// change returns the operations that set columns and run mutations of a row.
func change(table string, id ovsdb.UUID, set ovsdb.Row, mutations ...[]ovsdb.Mutation) []ovsdb.Operation {
	var operations []ovsdb.Operation
	if len(set) > 0 {
		operations = append(operations, ovsdb.Update(table, set, ovsdb.Is(id)))
	}
	if all := slices.Concat(mutations...); len(all) > 0 {
		operations = append(operations, ovsdb.Mutate(table, all, ovsdb.Is(id)))
	}
	return operations
}

func integerSet(values []int) ovsdb.Set {
	s := ovsdb.Set{}
	for _, v := range values {
		s = append(s, v)
	}
	return s
}

func integers(row ovsdb.Row, column string) []int {
	var out []int
	for _, n := range row.Ints(column) {
		out = append(out, int(n))
	}
	return out
}

func stringSet(values []string) ovsdb.Set {
	s := ovsdb.Set{}
	for _, v := range values {
		s = append(s, v)
	}
	return s
}
