package store

// foreseenRounds bounds how often Foresee asks: what closures ask next may depend on what they were answered.
const foreseenRounds = 3

// Foresee asks together what closures that are about to be called would ask one
// by one: each is rehearsed up to its first question whose answer is not known.
// What a rehearsal writes or emits is dropped. A closure must have no effect but
// on its transaction; what it changes in memory it is to have a copy of. Where
// questions cost no round trip, and where writes must not wait, nothing happens.
func (tx *Tx) Foresee(closures ...func(tx *Tx) error) error {
	c, ok := tx.c.(*conversation)
	if !ok || c.memory == nil {
		return nil
	}
	asked := map[string]bool{"": true} // what has no key is not remembered
	for range foreseenRounds {
		var list []question
		for _, do := range closures {
			r := &rehearsal{c: c}
			// Its error is that it has asked, or will come again.
			_ = run(do, &Tx{c: r, dialect: tx.dialect, writable: true})
			for _, q := range r.asked {
				if key := q.key(); !asked[key] {
					asked[key] = true
					q.row = func(func(...any) error) error { return nil }
					list = append(list, q)
				}
			}
		}
		if len(list) == 0 {
			return nil
		}
		if err := c.ask(list); err != nil {
			return err
		}
	}
	return nil
}

// rehearsal answers what is remembered, and notes what is not.
type rehearsal struct {
	c     *conversation
	asked []question
}

func (r *rehearsal) exec(string, []any) (int64, error)      { return 0, errMute }
func (r *rehearsal) put(string, []any, bool) (int64, error) { return 1, nil }

func (r *rehearsal) ask(list []question) error {
	answers := make([]answer, len(list))
	for i := range list {
		if a, ok := r.c.recall(&list[i]); ok {
			answers[i] = a
		} else {
			r.asked = append(r.asked, list[i])
		}
	}
	if len(r.asked) > 0 {
		return errMute
	}
	for i := range list {
		if err := answers[i].each(list[i].row); err != nil {
			return err
		}
	}
	return nil
}

func (r *rehearsal) first(query string, args []any, dest []any) error {
	return first(r, query, args, dest)
}
