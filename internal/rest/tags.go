package rest

import (
	"net/http"
	"slices"

	"isospin/internal/fault"
	"isospin/internal/resource"
	"isospin/internal/resource/value"
)

// maxTag is the greatest length of a tag, in characters.
const maxTag = 255

// addTags registers the tags of a resource's objects, the collection of which is
// at path: /tags for all of them, /tags/{tag} for one.
func (e *edge) addTags(r *resource.Resource, path string, tagger resource.Tagger) {
	path += "/{id}/tags"
	tag := func(c *call) (string, error) {
		name := c.params[1]
		reason, err := value.Validate("type:string", maxTag, name)
		if err == nil && reason != "" {
			err = fault.InvalidInput("%s", reason)
		}
		return name, err
	}
	allowed := func(c *call, verb string) error {
		return c.enforce(verb+"_"+r.Name+":tags", &Target{Resource: r, id: c.params[0]})
	}
	// change replaces the tags by what f makes of them and the ones in the body.
	change := func(verb string, f func(have, given []string) []string) func(*call) error {
		return func(c *call) error {
			doc, _, err := c.document(true)
			if err != nil {
				return err
			}
			given, err := tagsOf(doc)
			if err != nil {
				return err
			}
			if err := allowed(c, verb); err != nil {
				return err
			}
			tags, err := tagger.SetTags(c.ctx, c.params[0], func(have []string) ([]string, error) { return f(have, given), nil })
			if err != nil {
				return err
			}
			showTags(c, tags)
			return nil
		}
	}

	e.root.add(http.MethodGet, path, r.Name+" tags", func(c *call) error {
		if err := allowed(c, "get"); err != nil {
			return err
		}
		tags, err := tagger.Tags(c.ctx, c.params[0])
		if err != nil {
			return err
		}
		showTags(c, tags)
		return nil
	})
	e.root.add(http.MethodPut, path, r.Name+" tags", change("update", func(_, given []string) []string { return given }))
	e.root.add(http.MethodPost, path, r.Name+" tags", change("create", func(have, given []string) []string {
		for _, t := range given {
			if !slices.Contains(have, t) {
				have = append(have, t)
			}
		}
		return have
	}))
	e.root.add(http.MethodDelete, path, r.Name+" tags", func(c *call) error {
		if err := c.withoutBody(); err != nil {
			return err
		}
		if err := allowed(c, "delete"); err != nil {
			return err
		}
		if _, err := tagger.SetTags(c.ctx, c.params[0], func([]string) ([]string, error) { return nil, nil }); err != nil {
			return err
		}
		c.show(http.StatusNoContent, nil)
		return nil
	})

	path += "/{tag}"
	e.root.add(http.MethodGet, path, r.Name+" tags", func(c *call) error {
		name, err := tag(c)
		if err != nil {
			return err
		}
		if err := allowed(c, "get"); err != nil {
			return err
		}
		tags, err := tagger.Tags(c.ctx, c.params[0])
		if err != nil {
			return err
		}
		if !slices.Contains(tags, name) {
			return tagNotFound(name)
		}
		c.show(http.StatusNoContent, nil)
		return nil
	})
	e.root.add(http.MethodPut, path, r.Name+" tags", func(c *call) error {
		name, err := tag(c)
		if err != nil {
			return err
		}
		if err := allowed(c, "update"); err != nil {
			return err
		}
		if _, err := tagger.SetTags(c.ctx, c.params[0], func(have []string) ([]string, error) {
			if slices.Contains(have, name) {
				return have, nil
			}
			return append(have, name), nil
		}); err != nil {
			return err
		}
		c.show(http.StatusCreated, nil)
		return nil
	})
	e.root.add(http.MethodDelete, path, r.Name+" tags", func(c *call) error {
		name, err := tag(c)
		if err != nil {
			return err
		}
		if err := c.withoutBody(); err != nil {
			return err
		}
		if err := allowed(c, "delete"); err != nil {
			return err
		}
		if _, err := tagger.SetTags(c.ctx, c.params[0], func(have []string) ([]string, error) {
			i := slices.Index(have, name)
			if i < 0 {
				return nil, tagNotFound(name)
			}
			return slices.Delete(have, i, i+1), nil
		}); err != nil {
			return err
		}
		c.show(http.StatusNoContent, nil)
		return nil
	})
}

func tagNotFound(name string) error {
	return fault.New(fault.NotFound, "TagNotFound", "Tag %s could not be found.", name)
}

func showTags(c *call, tags []string) {
	if tags == nil {
		tags = []string{}
	}
	c.show(http.StatusOK, map[string][]string{"tags": tags})
}

// tagsOf reads {"tags": [...]}.
func tagsOf(doc any) ([]string, error) {
	body, ok := doc.(map[string]any)
	if _, there := body["tags"]; !ok || !there {
		return nil, fault.InvalidInput("Invalid tags body")
	}
	reason, err := value.Validate("type:list_of_unique_strings", maxTag, body["tags"])
	if err != nil {
		return nil, err
	}
	if reason != "" {
		return nil, fault.InvalidInput("%s", reason)
	}
	list, _ := body["tags"].([]any)
	tags := make([]string, 0, len(list))
	for _, v := range list {
		if s, ok := v.(string); ok {
			tags = append(tags, s)
		}
	}
	return tags, nil
}
