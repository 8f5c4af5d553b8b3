package runtime

import (
	"math/rand/v2"
	"time"
)

// backoff gives growing waits with jitter, so that a thousand agents that lost
// one server do not return as one.
type backoff struct {
	min, max time.Duration
	tries    int
}

// next is between half of and the whole of min·2ⁿ, at most max.
func (b *backoff) next() time.Duration {
	d := b.max
	if b.tries < 32 && b.min<<b.tries < b.max {
		d = b.min << b.tries
		b.tries++
	}
	return d/2 + rand.N(d/2+1)
}

func (b *backoff) reset() { b.tries = 0 }

// jittered is d give or take a tenth.
func jittered(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}
