package collection

import (
	"context"
	"encoding/json"
	"fmt"

	"isospin/internal/resource"
)

// Decode makes an object, ready to be shown, from the data of one of the
// collection's events.
func (c *Collection[T, P]) Decode(ctx context.Context, data []byte) (resource.Object, error) {
	o := new(T)
	if err := json.Unmarshal(data, o); err != nil {
		return nil, fmt.Errorf("%s: %w", c.Kind(), err)
	}
	return c.present(ctx, o)[0], nil
}
