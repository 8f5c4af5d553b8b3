package main

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// fault is one thing that is broken, and mended after a while.
type fault struct {
	At, For time.Duration // from the beginning of the load
	What    string
	// Replica is the number of the server that it meets; -1: none, or the one that holds a lease.
	Replica int
}

func (f fault) String() string {
	who := ""
	if f.Replica >= 0 {
		who = fmt.Sprintf(" server-%d", f.Replica+1)
	}
	return fmt.Sprintf("%6.1fs %s%s for %.1fs", f.At.Seconds(), f.What, who, f.For.Seconds())
}

// Kinds of faults: how likely, how long in milliseconds, and whether they meet one server.
var kinds = []struct {
	what             string
	weight, min, max int
	one              bool
}{
	{"kill", 4, 200, 4000, true},
	{"kill holder", 3, 200, 4000, false},
	{"terminate", 2, 200, 3000, true},
	{"pause", 3, 500, 12000, true},
	{"pause holder", 2, 7000, 12000, false},
	{"kill database", 2, 100, 3000, false},
	{"restart database", 2, 100, 2000, false},
	{"pause database", 2, 500, 5000, false},
	{"hang database", 1, 6000, 15000, false},
	{"cut database connections", 3, 0, 0, true},
	{"cut clients", 2, 0, 0, true},
	{"cut hosts", 3, 0, 0, true},
	{"stall database connections", 2, 500, 6000, true},
	{"stall hosts", 2, 500, 8000, true},
}

// target is what cannot be met by two faults at a time.
func (f fault) target() string {
	switch {
	case strings.HasSuffix(f.What, " holder"):
		return "holder"
	case f.Replica < 0:
		return "database"
	}
	return fmt.Sprint(f.Replica)
}

// draw makes the schedule of a seed.
func draw(seed uint64, load time.Duration, replicas int, only string) []fault {
	r := rand.New(rand.NewPCG(seed, 20))
	var list []fault
	busy := map[string]time.Duration{}
	sum := 0
	possible := slices.DeleteFunc(slices.Clone(kinds), func(k struct {
		what             string
		weight, min, max int
		one              bool
	}) bool {
		return !strings.Contains(k.what, only)
	})
	for _, k := range possible {
		sum += k.weight
	}
	if sum == 0 {
		return nil
	}
	for at := time.Second; at < load; at += time.Duration(300+r.IntN(1700)) * time.Millisecond {
		n, i := r.IntN(sum), 0
		for ; n >= possible[i].weight; i++ {
			n -= possible[i].weight
		}
		k := possible[i]
		f := fault{At: at, What: k.what, For: time.Duration(k.min+r.IntN(k.max-k.min+1)) * time.Millisecond, Replica: -1}
		if k.one {
			f.Replica = r.IntN(replicas)
		}
		if busy[f.target()] > at {
			continue
		}
		// A server that is started again needs a moment.
		busy[f.target()] = at + f.For + 500*time.Millisecond
		list = append(list, f)
	}
	slices.SortFunc(list, func(a, b fault) int { return cmp.Compare(a.At, b.At) })
	return list
}
