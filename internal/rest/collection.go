package rest

import (
	"cmp"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"isospin/internal/fault"
	"isospin/internal/resource"
	"isospin/internal/resource/value"
)

// collection serves one resource.
type collection struct {
	*resource.Resource
	edge *edge
	// key is the name of the attribute that identifies objects.
	key string
}

func (e *edge) addResource(r *resource.Resource) {
	if r.Service == nil {
		panic("resource " + r.Name + " has no service")
	}
	s := &collection{Resource: r, edge: e, key: "id"}
	for _, a := range r.Attributes() {
		if a.Flags.Has(resource.PrimaryKey) {
			s.key = a.Name
		}
	}
	if r.Parent != nil && (r.Within == nil || r.Parent.Parent != nil) {
		panic("resource " + r.Name + " is not whole as a sub-resource")
	}
	path := pathOf(r)
	for _, o := range []struct {
		operation    resource.Operation
		method, path string
		serve        func(*call) error
	}{
		{resource.List, http.MethodGet, path, s.list},
		{resource.Create, http.MethodPost, path, s.create},
		{resource.Show, http.MethodGet, path + "/{id}", s.show},
		{resource.Update, http.MethodPut, path + "/{id}", s.update},
		{resource.Delete, http.MethodDelete, path + "/{id}", s.delete},
	} {
		if r.Serves(o.operation) {
			e.root.add(o.method, o.path, r.Name, o.serve).ownTurn = o.operation == resource.List
		}
	}
	s.addHistory(path)
	for _, a := range r.Actions {
		e.root.add(a.Method, path+"/{id}/"+a.Name, r.Name, func(c *call) error { return s.act(c, &a) })
	}
	if tagger, ok := r.Service.(resource.Tagger); ok && r.Taggable {
		e.addTags(r, pathOf(r), tagger)
		if r.Prefix != "" && r.Parent == nil {
			// Neutron leaves out the prefix, /policies/{id}/tags; some clients do not.
			e.addTags(r, "/"+r.Path, tagger)
		}
	}
}

// service is that of the objects below the path's parent; of all, when there is none.
func (s *collection) service(c *call) resource.Service {
	if s.Parent == nil {
		return s.Service
	}
	return s.Within(c.params[0])
}

// named is the id at the end of the path of one object.
func (s *collection) named(c *call) string {
	if s.Parent == nil {
		return c.params[0]
	}
	return c.params[1]
}

// target is what policy decides about: body of a create or update, id of one object.
func (s *collection) target(c *call, body *resource.Body, id string) *Target {
	t := &Target{Resource: s.Resource, Body: body, id: id}
	if s.Parent != nil {
		t.within = s.service(c)
		t.Params = map[string]string{s.Parent.Name + "_id": c.params[0]}
	}
	return t
}

func (s *collection) list(c *call) error {
	q, err := parseQuery(c.r.URL.RawQuery)
	if err != nil {
		return err
	}
	list, err := c.edge.listQuery(s.Resource, q)
	if err != nil {
		return err
	}
	turns := c.edge.requests
	if list.Limit == 0 || list.Limit > longPage {
		turns = c.edge.lists
	}
	if err := c.enter(turns); err != nil {
		return err
	}
	c.position()
	objects, err := s.service(c).List(c.ctx, list)
	if err != nil {
		return err
	}
	// Links follow from the whole page, also when policy hides a part of it:
	// else one hidden object would end the paging.
	links := s.links(c, q, list, objects)
	objects = s.edge.Enforcer.Visible(c.ctx, s.Resource, objects)
	b := borrow()
	defer giveBack(b)
	*b = s.appendObjects(c, *b, objects, q.fields())
	if len(links) > 0 {
		raw, err := marshal(links)
		if err != nil {
			return err
		}
		*b = append(append((*b)[:len(*b)-1], `,"`+s.Collection+`_links":`...), raw...)
		*b = append(*b, '}')
	}
	c.write(http.StatusOK, typeJSON, *b)
	return nil
}

// appendObjects appends {"<collection>":[…]}.
func (s *collection) appendObjects(c *call, b []byte, objects []resource.Object, fields map[string]bool) []byte {
	b = append(append(append(b, `{"`...), s.Collection...), `":[`...)
	if len(objects) > 0 {
		// As in Neutron, what may be seen of the first is shown of all.
		fields = s.edge.Enforcer.Fields(c.ctx, s.Resource, objects[0], fields)
	}
	for i, o := range objects {
		if i > 0 {
			b = append(b, ',')
		}
		b = s.Service.Encode(b, o, fields)
	}
	return append(b, `]}`...)
}

// answer sends one object.
func (s *collection) answer(c *call, status int, o resource.Object, fields map[string]bool) {
	b := borrow()
	defer giveBack(b)
	fields = s.edge.Enforcer.Fields(c.ctx, s.Resource, o, fields)
	*b = append(append(append(*b, `{"`...), s.Name...), `":`...)
	*b = append(s.Service.Encode(*b, o, fields), '}')
	c.write(status, typeJSON, *b)
}

func (s *collection) show(c *call) error {
	q, err := parseQuery(c.r.URL.RawQuery)
	if err != nil {
		return err
	}
	id := s.named(c)
	o, err := s.service(c).Get(c.ctx, id)
	if err != nil {
		return err
	}
	target := s.target(c, nil, id)
	target.object = o
	err = s.edge.Enforcer.Enforce(c.ctx, s.PolicyAction("get"), target)
	if fault.IsKind(err, fault.Forbidden) {
		if s.Older {
			return notFound()
		}
		return hidden{}
	}
	if err != nil {
		return err
	}
	s.answer(c, http.StatusOK, o, q.fields())
	return nil
}

func (s *collection) create(c *call) error {
	items, bulk, err := c.items(s.Resource, true)
	if err != nil {
		return err
	}
	bodies := make([]*resource.Body, len(items))
	for i, item := range items {
		if bodies[i], err = s.PrepareCreate(item, c.caller()); err != nil {
			return err
		}
	}
	for _, body := range bodies {
		if err := s.edge.Enforcer.Enforce(c.ctx, s.PolicyAction("create"), s.target(c, body, "")); err != nil {
			return err
		}
	}
	objects, err := s.service(c).Create(c.ctx, bodies)
	if err != nil {
		return err
	}
	if !bulk {
		s.answer(c, http.StatusCreated, objects[0], nil)
		return nil
	}
	b := borrow()
	defer giveBack(b)
	*b = s.appendObjects(c, *b, objects, nil)
	c.write(http.StatusCreated, typeJSON, *b)
	return nil
}

// caller is what body checks must know of who asks.
func (c *call) caller() resource.Caller {
	return resource.Caller{
		ProjectID:  c.who.ProjectID,
		SetProject: c.who.Admin || slices.Contains(c.who.Roles, "service"),
	}
}

func (s *collection) update(c *call) error {
	items, _, err := c.items(s.Resource, false)
	if err != nil {
		return err
	}
	body, err := s.PrepareUpdate(items[0], c.caller())
	if err != nil {
		return err
	}
	match, err := c.match(s.Resource)
	if err != nil {
		return err
	}
	id := s.named(c)
	if err := c.enforce(s.PolicyAction("update"), s.target(c, body, id)); err != nil {
		return err
	}
	o, err := s.service(c).Update(c.ctx, id, body, match)
	if err != nil {
		return err
	}
	s.answer(c, http.StatusOK, o, nil)
	return nil
}

func (s *collection) delete(c *call) error {
	if err := c.withoutBody(); err != nil {
		return err
	}
	match, err := c.match(s.Resource)
	if err != nil {
		return err
	}
	id := s.named(c)
	if err := c.enforce(s.PolicyAction("delete"), s.target(c, nil, id)); err != nil {
		return err
	}
	remove := s.service(c).Delete
	if s.Cascade != nil {
		q, err := parseQuery(c.r.URL.RawQuery)
		if err != nil {
			return err
		}
		if given := q.byName()["cascade"]; len(given) > 0 {
			wants, err := value.Convert("convert_to_boolean", given[0])
			if err != nil {
				return err
			}
			if wants == true {
				remove = s.Cascade
			}
		}
	}
	if err := remove(c.ctx, id, match); err != nil {
		return err
	}
	c.show(http.StatusNoContent, nil)
	return nil
}

// act serves a member action.
func (s *collection) act(c *call, a *resource.Action) error {
	doc, _, err := c.document(s.Older)
	if err != nil {
		return err
	}
	id := s.named(c)
	if err := c.enforce(a.Name, &Target{Resource: s.Resource, Document: doc, id: id}); err != nil {
		return err
	}
	v, err := a.Do(c.ctx, id, doc)
	if err != nil {
		return err
	}
	if shown, ok := v.(resource.Shown); ok {
		s.answer(c, cmp.Or(a.Status, http.StatusOK), shown.Object, nil)
		return nil
	}
	c.result(a.Status, v)
	return nil
}

// result sends what an action or route returned.
func (c *call) result(status int, v any) {
	if status == 0 {
		status = http.StatusOK
	}
	c.show(status, v)
}

func (e *edge) addRoute(r resource.Route) {
	e.root.add(r.Method, r.Path, r.Path, func(c *call) error {
		q, err := parseQuery(c.r.URL.RawQuery)
		if err != nil {
			return err
		}
		in := resource.Call{Query: q.byName(), Params: map[string]string{}}
		for i, name := range c.names {
			in.Params[name] = c.params[i]
		}
		if r.NoneIsCaller && in.Params["project_id"] == "None" {
			in.Params["project_id"] = c.who.ProjectID
		}
		switch r.Method {
		case http.MethodPost, http.MethodPut:
			in.Body, _, err = c.document(true)
		case http.MethodDelete:
			err = c.withoutBody()
		}
		if err != nil {
			return err
		}
		own := r.OwnFree && c.who.ProjectID != "" && in.Params["project_id"] == c.who.ProjectID
		if r.Action != "" && !own {
			if err := e.Enforcer.Enforce(c.ctx, r.Action, &Target{Params: in.Params}); err != nil {
				return err
			}
		}
		v, err := r.Do(c.ctx, in)
		if err != nil {
			return err
		}
		c.result(r.Status, v)
		return nil
	})
}

// links are those to the pages before and after. As in Neutron, a full page
// always has both, and a page that ran out of objects has only that back.
func (s *collection) links(c *call, q query, list *resource.Query, objects []resource.Object) []link {
	if list.Limit == 0 {
		return nil
	}
	var links []link
	short := len(objects) < list.Limit
	if !short || list.Reverse {
		links = append(links, link{"next", s.href(c, q, objects, true)})
	}
	if !short || !list.Reverse {
		links = append(links, link{"previous", s.href(c, q, objects, false)})
	}
	return links
}

func (s *collection) href(c *call, q query, objects []resource.Object, next bool) string {
	var b strings.Builder
	b.WriteString(c.base())
	b.WriteString(c.r.URL.EscapedPath())
	separator := byte('?')
	add := func(name, value string) {
		b.WriteByte(separator)
		separator = '&'
		b.WriteString(url.QueryEscape(name) + "=" + url.QueryEscape(value))
	}
	for _, p := range q {
		if p.name != "marker" && p.name != "page_reverse" {
			add(p.name, p.value)
		}
	}
	if len(objects) > 0 {
		marker := objects[0]
		if next {
			marker = objects[len(objects)-1]
		}
		add("marker", s.id(marker))
	}
	if !next {
		add("page_reverse", "True")
	}
	return b.String()
}

// id returns what identifies an object.
func (s *collection) id(o resource.Object) string {
	if b, ok := o.(resource.Based); ok {
		return b.Base().ID
	}
	var members map[string]any
	if err := json.Unmarshal(s.Service.Encode(nil, o, map[string]bool{s.key: true}), &members); err != nil {
		return ""
	}
	switch v := members[s.key].(type) {
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return ""
}

// maxKept bounds the buffers that are kept for later answers, in bytes.
const maxKept = 8 << 20

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 16<<10); return &b }}

func borrow() *[]byte { return buffers.Get().(*[]byte) }

func giveBack(b *[]byte) {
	if cap(*b) > maxKept {
		return
	}
	*b = (*b)[:0]
	buffers.Put(b)
}
