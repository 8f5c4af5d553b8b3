package rest

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"

	"isospin/internal/resource"
	"isospin/internal/watch"
)

// addDocument registers the description of the whole API, an OpenAPI 3.1
// document (spec.openapis.org/oas/v3.1.0) made from the registry.
func (e *edge) addDocument() {
	document := sync.OnceValue(e.document)
	// The suffix .json is cut off every path, so /openapi.json is this.
	e.root.add(http.MethodGet, "/openapi", "openapi", func(c *call) error {
		whole := map[string]any{"servers": []any{schema{"url": c.base()}}}
		for k, v := range document() {
			whole[k] = v
		}
		raw, err := marshal(whole)
		if err != nil {
			return err
		}
		c.write(http.StatusOK, typeJSON, raw)
		return nil
	})
}

// schema is a part of the document.
type schema = map[string]any

func reference(kind, name string) schema { return schema{"$ref": "#/components/" + kind + "/" + name} }

func jsonContent(s schema) schema { return schema{typeJSON: schema{"schema": s}} }

// document is the description without the servers, which depend on who asks.
func (e *edge) document() schema {
	d := &documenter{paths: map[string]schema{}, schemas: schema{}, operations: map[string]bool{}, streams: e.Watch != nil}
	d.schemas["Error"] = schema{
		"type": "object", "required": []string{"NeutronError"},
		"properties": schema{"NeutronError": schema{
			"type": "object", "required": []string{"type", "message", "detail"},
			"properties": schema{"type": schema{"type": "string"}, "message": schema{"type": "string"}, "detail": schema{"type": "string"}},
		}},
	}
	for _, r := range e.Registry.Resources() {
		d.resource(r)
	}
	for _, r := range e.Registry.Routes() {
		d.route(r)
	}
	d.discovery()
	d.watch()
	var aliases []string
	for _, x := range e.Registry.Extensions() {
		aliases = append(aliases, x.Alias)
	}
	return schema{
		"openapi":           "3.1.0",
		"info":              schema{"title": "OpenStack Networking", "version": "v2.0", "description": "The Networking API v2.0, with the extensions that this server has."},
		"paths":             d.paths,
		"security":          []any{schema{"token": []string{}}},
		"x-extensions":      aliases,
		"jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
		"components":        schema{"schemas": d.schemas, "responses": responses(), "parameters": parameters(), "securitySchemes": schema{"token": schema{"type": "apiKey", "in": "header", "name": "X-Auth-Token"}}},
	}
}

func responses() schema {
	return schema{"Error": schema{
		"description": "The request failed. 400: its content; 401: no valid token; 403: policy; 404: absent, or hidden from the caller; 409: it conflicts with what is there; 412: If-Match; 503: try again later.",
		"content":     jsonContent(reference("schemas", "Error")),
	}}
}

func parameters() schema {
	query := func(name, description string, s schema) schema {
		return schema{"name": name, "in": "query", "description": description, "schema": s}
	}
	texts := schema{"type": "array", "items": schema{"type": "string"}}
	return schema{
		"fields":        query("fields", "Members to show; repeatable.", texts),
		"sort_key":      query("sort_key", "Attribute to sort by; repeatable.", texts),
		"sort_dir":      query("sort_dir", "Direction for the sort_key of the same place.", schema{"type": "array", "items": schema{"enum": []string{"asc", "desc"}}}),
		"limit":         query("limit", "Greatest number of objects; 0: no paging.", schema{"type": "integer", "minimum": 0}),
		"marker":        query("marker", "Id of the last object of the page before.", schema{"type": "string"}),
		"page_reverse":  query("page_reverse", "The page before the marker.", schema{"type": "boolean"}),
		"tags":          query("tags", "Objects with all of these tags, comma-separated.", schema{"type": "string"}),
		"tags-any":      query("tags-any", "Objects with any of these tags.", schema{"type": "string"}),
		"not-tags":      query("not-tags", "Objects without all of these tags.", schema{"type": "string"}),
		"not-tags-any":  query("not-tags-any", "Objects with none of these tags.", schema{"type": "string"}),
		"changed_since": query("changed_since", "Objects updated at or after this time.", schema{"type": "string"}),
		"ifMatch":       schema{"name": "If-Match", "in": "header", "description": "revision_number=N: only while the object has this revision.", "schema": schema{"type": "string"}},
	}
}

type documenter struct {
	paths      map[string]schema
	schemas    schema
	operations map[string]bool
	// streams: changes are shown.
	streams bool
}

// operation adds one call.
func (d *documenter) operation(method, path, id, action string, o schema) {
	for d.operations[id] {
		id += "_"
	}
	d.operations[id] = true
	o["operationId"] = id
	if action != "" {
		o["x-openstack-policy"] = action
	}
	list, _ := o["parameters"].([]any)
	for _, segment := range strings.Split(path, "/") {
		if name, ok := strings.CutPrefix(segment, "{"); ok {
			list = append(list, schema{"name": strings.TrimSuffix(name, "}"), "in": "path", "required": true, "schema": schema{"type": "string"}})
		}
	}
	if list != nil {
		o["parameters"] = list
	}
	answers := o["responses"].(schema)
	answers["default"] = reference("responses", "Error")
	path = "/v2.0" + path
	if d.paths[path] == nil {
		d.paths[path] = schema{}
	}
	d.paths[path][strings.ToLower(method)] = o
}

// camel is the name of a resource's schema: security_group → SecurityGroup.
func camel(r *resource.Resource) string {
	name := r.Name
	if r.Parent != nil {
		name = r.Parent.Name + "_" + name
	}
	parts := strings.Split(name, "_")
	for i, p := range parts {
		if p != "" {
			parts[i] = strings.ToUpper(p[:1]) + p[1:]
		}
	}
	return strings.Join(parts, "")
}

func members(r *resource.Resource, flag resource.Flags, requiring bool) schema {
	properties, required := schema{}, []string{}
	for _, a := range r.Attributes() {
		if !a.Flags.Has(flag) {
			continue
		}
		s := attributeSchema(a)
		if requiring {
			if a.Required {
				required = append(required, a.Name)
			} else if a.Default != resource.Unspecified {
				s["default"] = a.Default
			}
		}
		properties[a.Name] = s
		if a.Name == "tenant_id" {
			properties["project_id"] = s
		}
	}
	s := schema{"type": "object", "properties": properties}
	if len(required) > 0 {
		slices.Sort(required)
		s["required"] = required
	}
	if flag != resource.Visible {
		s["additionalProperties"] = false
	}
	return s
}

// attributeSchema is what the wire form of an attribute may be.
func attributeSchema(a *resource.Attribute) schema {
	s := schema{}
	var types []string
	for _, base := range strings.Split(a.Type, "|") {
		switch {
		case base == "bool":
			base = "boolean"
		case base == "int":
			base = "integer"
		case base == "timestamp":
			base, s["format"] = "string", "date-time"
		case strings.HasPrefix(base, "list"):
			if item := strings.TrimSuffix(strings.TrimPrefix(base, "list<"), ">"); item == "string" || item == "object" {
				s["items"] = schema{"type": item}
			}
			base = "array"
		}
		types = append(types, base)
	}
	switch {
	case a.Type == "":
	case len(types) == 1:
		s["type"] = types[0]
	default:
		s["type"] = types
	}
	for rule, argument := range a.Validate {
		switch rule {
		case "type:uuid", "type:uuid_or_none":
			s["format"] = "uuid"
		case "type:string", "type:string_or_none", "type:name_string", "type:not_empty_name_string":
			if n, ok := whole(argument); ok {
				s["maxLength"] = n
			}
		case "type:values":
			if list := jsonList(argument); list != nil {
				s["enum"] = list
			}
		case "type:range", "type:range_or_none":
			if list := jsonList(argument); len(list) == 2 {
				s["minimum"], s["maximum"] = list[0], list[1]
			}
		case "type:non_negative":
			s["minimum"] = 0
		case "type:regex":
			s["pattern"] = argument
		}
	}
	// Bodies may write what converters make right: "true", "42".
	if a.Convert != "" && s["enum"] != nil {
		delete(s, "enum")
	}
	return s
}

func whole(v any) (int64, bool) {
	switch n := v.(type) {
	case int:
		return int64(n), true
	case int64:
		return n, true
	}
	return 0, false
}

// jsonList is a rule's argument that is a list of any type.
func jsonList(v any) []any {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	var list []any
	if json.Unmarshal(raw, &list) != nil {
		return nil
	}
	return list
}

func answer(description string, content schema) schema {
	a := schema{"description": description}
	if content != nil {
		a["content"] = content
	}
	return a
}

func wrapped(key string, s schema) schema {
	return schema{"type": "object", "required": []string{key}, "properties": schema{key: s}}
}

func (d *documenter) resource(r *resource.Resource) {
	name, path := camel(r), pathOf(r)
	d.schemas[name] = members(r, resource.Visible, false)
	label := []string{r.Collection}
	id := strings.TrimPrefix(r.PolicyAction("x"), "x_")
	tag := func(o schema) schema { o["tags"] = label; return o }
	shown := reference("schemas", name)
	one := jsonContent(wrapped(r.Name, shown))
	if r.Serves(resource.List) {
		list := wrapped(r.Collection, schema{"type": "array", "items": shown})
		if !r.NoPaging {
			list["properties"].(schema)[r.Collection+"_links"] = schema{"type": "array", "items": schema{"type": "object",
				"properties": schema{"rel": schema{"enum": []string{"next", "previous"}}, "href": schema{"type": "string"}}}}
		}
		d.operation("GET", path, "list_"+id, r.PolicyAction("get"), tag(schema{
			"summary": "Lists " + r.Collection + ".", "parameters": listParameters(r), "responses": schema{"200": answer("The objects that the caller may see.", jsonContent(list))}}))
	}
	if r.Serves(resource.Create) {
		d.schemas[name+"Create"] = members(r, resource.Post, true)
		created := reference("schemas", name+"Create")
		body, out := wrapped(r.Name, created), wrapped(r.Name, shown)
		if !r.NoBulk {
			body = schema{"oneOf": []any{body, wrapped(r.Collection, schema{"type": "array", "minItems": 1, "items": created})}}
			out = schema{"oneOf": []any{out, wrapped(r.Collection, schema{"type": "array", "items": shown})}}
		}
		d.operation("POST", path, "create_"+id, r.PolicyAction("create"), tag(schema{
			"summary": "Creates " + r.Collection + ".", "requestBody": schema{"required": true, "content": jsonContent(body)},
			"responses": schema{"201": answer("Created.", jsonContent(out))}}))
	}
	path += "/{id}"
	if d.streams && watch.Watchable(r) {
		d.history(r, path, id, label)
	}
	if r.Serves(resource.Show) {
		d.operation("GET", path, "show_"+id, r.PolicyAction("get"), tag(schema{
			"summary": "Shows one of " + r.Collection + ".", "parameters": []any{reference("parameters", "fields")}, "responses": schema{"200": answer("The object.", one)}}))
	}
	if r.Serves(resource.Update) {
		d.schemas[name+"Update"] = members(r, resource.Put, false)
		d.operation("PUT", path, "update_"+id, r.PolicyAction("update"), tag(schema{
			"summary": "Changes the members that the body has.", "parameters": []any{reference("parameters", "ifMatch")},
			"requestBody": schema{"required": true, "content": jsonContent(wrapped(r.Name, reference("schemas", name+"Update")))},
			"responses":   schema{"200": answer("Changed.", one)}}))
	}
	if r.Serves(resource.Delete) {
		d.operation("DELETE", path, "delete_"+id, r.PolicyAction("delete"), tag(schema{
			"summary": "Deletes one of " + r.Collection + ".", "parameters": []any{reference("parameters", "ifMatch")}, "responses": schema{"204": answer("Deleted.", nil)}}))
	}
	for _, a := range r.Actions {
		o := tag(schema{"summary": a.Name + ".", "responses": schema{status(a.Status): answer("Done.", jsonContent(schema{}))}})
		if a.Method != http.MethodGet && a.Method != http.MethodDelete {
			o["requestBody"] = schema{"content": jsonContent(schema{"type": "object"})}
		}
		d.operation(a.Method, path+"/"+a.Name, id+"_"+a.Name, a.Name, o)
	}
	if _, ok := r.Service.(resource.Tagger); ok && r.Taggable {
		d.tags(r, path, id, label)
	}
}

func status(code int) string {
	switch code {
	case http.StatusCreated:
		return "201"
	case http.StatusNoContent:
		return "204"
	}
	return "200"
}

func listParameters(r *resource.Resource) []any {
	names := []string{"fields"}
	if !r.NoSorting {
		names = append(names, "sort_key", "sort_dir")
	}
	if !r.NoPaging {
		names = append(names, "limit", "marker", "page_reverse")
	}
	if r.Standard {
		names = append(names, "changed_since")
	}
	if r.Taggable {
		names = append(names, "tags", "tags-any", "not-tags", "not-tags-any")
	}
	var list []any
	for _, n := range names {
		list = append(list, reference("parameters", n))
	}
	for _, a := range r.Attributes() {
		if a.Flags.Has(resource.Filter) && a.Name != "tags" {
			list = append(list, schema{"name": a.Name, "in": "query", "description": "Objects with one of these values.", "schema": schema{"type": "array", "items": schema{"type": "string"}}})
		}
	}
	return list
}

func (d *documenter) tags(r *resource.Resource, path, id string, label []string) {
	tags := schema{"type": "array", "maxItems": 50, "uniqueItems": true, "items": schema{"type": "string", "maxLength": maxTag}}
	all := jsonContent(wrapped("tags", tags))
	body := schema{"required": true, "content": all}
	add := func(method, below, verb, action, code string, content schema, in schema) {
		o := schema{"tags": label, "summary": verb + " tags.", "responses": schema{code: answer("Done.", content)}}
		if in != nil {
			o["requestBody"] = in
		}
		d.operation(method, path+below, strings.ToLower(verb)+"_"+id+"_tags", action+"_"+r.Name+":tags", o)
	}
	add("GET", "/tags", "List", "get", "200", all, nil)
	add("PUT", "/tags", "Replace", "update", "200", all, body)
	add("POST", "/tags", "Add", "create", "200", all, body)
	add("DELETE", "/tags", "Remove", "delete", "204", nil, nil)
	add("GET", "/tags/{tag}", "Check", "get", "204", nil, nil)
	add("PUT", "/tags/{tag}", "Set", "update", "201", nil, nil)
	add("DELETE", "/tags/{tag}", "Unset", "delete", "204", nil, nil)
}

func (d *documenter) route(r resource.Route) {
	o := schema{"summary": r.Method + " " + r.Path, "tags": []string{strings.Split(strings.TrimPrefix(r.Path, "/"), "/")[0]}}
	content := jsonContent(schema{})
	if r.Status == http.StatusNoContent {
		content = nil
	}
	o["responses"] = schema{status(r.Status): answer("Done.", content)}
	if r.Method == http.MethodPost || r.Method == http.MethodPut {
		o["requestBody"] = schema{"content": jsonContent(schema{"type": "object"})}
	}
	id := strings.ToLower(r.Method) + strings.NewReplacer("/", "_", "-", "_", "{", "", "}", "").Replace(r.Path)
	d.operation(r.Method, r.Path, id, r.Action, o)
}

func (d *documenter) discovery() {
	x := schema{"type": "object", "properties": schema{
		"alias": schema{"type": "string"}, "name": schema{"type": "string"}, "description": schema{"type": "string"},
		"updated": schema{"type": "string"}, "links": schema{"type": "array"}}}
	d.schemas["Extension"] = x
	label := []string{"extensions"}
	d.operation("GET", "/extensions", "list_extension", "", schema{"summary": "Lists extensions.", "tags": label,
		"responses": schema{"200": answer("All extensions of the server.", jsonContent(wrapped("extensions", schema{"type": "array", "items": reference("schemas", "Extension")})))}})
	d.operation("GET", "/extensions/{alias}", "show_extension", "", schema{"summary": "Shows one extension.", "tags": label,
		"responses": schema{"200": answer("The extension.", jsonContent(wrapped("extension", reference("schemas", "Extension"))))}})
	d.operation("GET", "/openapi.json", "show_openapi", "", schema{"summary": "This document.", "tags": label,
		"responses": schema{"200": answer("OpenAPI 3.1.", jsonContent(schema{"type": "object"}))}})
}

// ofSequence is a sequence number as a query parameter.
func ofSequence(description string) schema {
	return schema{"name": "since", "in": "query", "description": description, "schema": schema{"type": "integer", "minimum": 0}}
}

func (d *documenter) watch() {
	if !d.streams {
		return
	}
	text, sequence := schema{"type": "string"}, schema{"type": "integer"}
	d.schemas["Change"] = schema{
		"type": "object", "required": []string{"sequence"}, "description": "A line of a watch: a change; with sequence alone, where the watch is; with error alone, the last one.",
		"properties": schema{
			"sequence": schema{"type": "integer", "description": "Where to go on, once the line is taken."},
			"kind":     text, "op": schema{"enum": []string{"create", "update", "delete"}}, "id": text, "revision": sequence, "project_id": text, "request_id": text,
			"parent_id": schema{"type": "string", "description": "Of an object below another: the other's id."},
			"at":        schema{"type": "string", "format": "date-time"}, "object": schema{"type": []string{"object", "null"}, "description": "As GET shows it to the caller; null when it is gone, or not to be seen any more."},
		},
	}
	d.operation("GET", "/watch", "watch", "", schema{
		"summary": "Streams the changes that the caller may see, in commit order.", "tags": []string{"watch"},
		"parameters": []any{
			ofSequence("The sequence after which changes are wanted. Without it: from now."),
			schema{"name": "kind", "in": "query", "description": "Kinds of objects, by their singular names.", "schema": schema{"type": "array", "items": text}},
			reference("parameters", "fields"),
		},
		"responses": schema{
			"200": schema{"description": "A line of JSON for each change.", "content": schema{typeLines: schema{"schema": reference("schemas", "Change")}},
				"headers": schema{sequenceHeader: schema{"description": "Where the watch begins; lists have it, too.", "schema": sequence}}},
			"410": reference("responses", "Error"), "429": reference("responses", "Error"), "503": reference("responses", "Error"),
		}})
}

func (d *documenter) history(r *resource.Resource, path, id string, label []string) {
	if d.schemas["Past"] == nil {
		text := schema{"type": []string{"string", "null"}}
		d.schemas["Past"] = schema{"type": "object", "properties": schema{
			"sequence": schema{"type": "integer"}, "op": schema{"enum": []string{"create", "update", "delete"}}, "at": schema{"type": "string", "format": "date-time"},
			"revision": schema{"type": "integer"}, "request_id": schema{"type": "string"}, "user_id": text, "project_id": text,
			"changes": schema{"type": []string{"object", "null"}, "description": "By attribute; null when the state before is not known.",
				"additionalProperties": schema{"type": "object", "properties": schema{"old": schema{}, "new": schema{}}}},
		}}
	}
	answered := wrapped("history", schema{"type": "array", "items": reference("schemas", "Past")})
	answered["properties"].(schema)["next"] = schema{"type": "integer", "description": "There are more after this sequence."}
	d.operation("GET", path+"/history", "history_"+id, r.PolicyAction("get"), schema{
		"summary": "Tells what became of one of " + r.Collection + ", oldest first, also after it was deleted.", "tags": label,
		"parameters": []any{ofSequence("The sequence after which changes are wanted."), schema{"name": "limit", "in": "query", "description": "Greatest number of changes.", "schema": schema{"type": "integer", "minimum": 1, "maximum": maxHistory}}},
		"responses":  schema{"200": answer("What is kept of it, and for the caller to see.", jsonContent(answered))}})
}
