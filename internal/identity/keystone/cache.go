package keystone

import (
	"crypto/sha256"
	"sync"
	"time"
)

// cacheKey is the SHA-256 of a token and whether it may have expired.
type cacheKey [sha256.Size + 1]byte

// cache is a map of bounded size whose entries end. When it is full, what has
// ended goes first, then entries at random: which ones costs nothing but a
// question to Keystone.
type cache[T any] struct {
	mu      sync.Mutex
	limit   int
	entries map[cacheKey]entry[T]
}

type entry[T any] struct {
	value T
	until time.Time
}

func newCache[T any](limit int) *cache[T] {
	return &cache[T]{limit: limit, entries: map[cacheKey]entry[T]{}}
}

func (c *cache[T]) get(k cacheKey, now time.Time) (T, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[k]
	if ok && !now.Before(e.until) {
		delete(c.entries, k)
		ok = false
	}
	if !ok {
		var none T
		return none, false
	}
	return e.value, true
}

// evictions bounds how many entries one put looks at to make room.
const evictions = 16

func (c *cache[T]) put(k cacheKey, v T, now, until time.Time) {
	if c.limit <= 0 || !now.Before(until) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, there := c.entries[k]; !there && len(c.entries) >= c.limit {
		looked := 0
		for old, e := range c.entries { // in random order
			if looked++; looked > evictions {
				break
			}
			if !now.Before(e.until) {
				delete(c.entries, old)
			}
		}
		for old := range c.entries {
			if len(c.entries) < c.limit {
				break
			}
			delete(c.entries, old)
		}
	}
	c.entries[k] = entry[T]{v, until}
}
