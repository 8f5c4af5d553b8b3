package store_test

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
)

const (
	readOps  = "get get show list exists exists count count places ties lates marks"
	writeOps = "box box value value value name drop item item item spare spare tally tally tie tie late late mark mark mark two many untie unlate remove unplace limit sweep fail"
	// calmOps are refused seldom: much is remembered.
	calmOps = "value value box drop item item spare tally mark untie remove unplace limit"
)

func pick(r *rand.Rand, words string) string {
	list := strings.Fields(words)
	return list[r.IntN(len(list))]
}

// plan makes up a transaction.
func plan(r *rand.Rand, writes, calm bool) (list []op) {
	length, items := 7, 24
	if calm {
		length, items = 3, 10000
	}
	for range 1 + r.IntN(length) {
		o := op{Do: pick(r, readOps), Way: r.IntN(4)}
		switch {
		case writes && calm && r.IntN(3) > 0:
			o.Do = pick(r, calmOps)
		case writes && r.IntN(3) > 0:
			o.Do = pick(r, writeOps)
		}
		name := func(prefix string, n int) string { return prefix + strconv.Itoa(r.IntN(n)) }
		switch o.ID = name("b", 6); o.Do {
		case "box", "name":
			if o.To = name("n", 4); o.Do == "box" && (calm || r.IntN(2) == 0) {
				o.To = ""
			}
			switch {
			case calm:
				o.Way = 1
			case o.Do == "box" && r.IntN(4) == 0: // what comes and goes has no event
				list = append(list, o)
				o = op{Do: "drop", ID: o.ID, Way: o.Way}
			}
		case "drop":
			read := op{Do: pick(r, "get exists count"), ID: o.ID}
			list = append(list, read, o, read)
			if o = (op{Do: "box", ID: o.ID, Way: o.Way}); !calm && r.IntN(4) == 0 { // it stays away
				o = read
			}
		case "item", "spare", "tally", "remove":
			o.ID, o.To, o.N = name("i", items), name("b", 6), r.IntN(places+1)-1
			if calm {
				o.N = -1
			}
		case "tie", "untie":
			if o.ID, o.To = name("t", 6), name("i", 24); o.Do == "tie" && r.IntN(3) == 0 {
				list = append(list, o)
				o.Do = "untie"
			}
		case "late":
			o.ID, o.To = name("l", 6), name("b", 6)
			if r.IntN(2) == 0 { // what it refers to comes after it
				list = append(list, o)
				o = op{Do: "box", ID: o.To, Way: o.Way}
			}
		case "unlate":
			// MariaDB still wants what an insert has referred to when its row is gone again.
			if o.ID = name("l", 6); slices.ContainsFunc(list, func(o op) bool { return o.Do == "late" }) {
				o.Do = "lates"
			}
		case "mark", "two":
			n := r.IntN(9)
			if o.ID, o.To, o.N = "m"+strconv.Itoa(n), "m"+strconv.Itoa(n+1), r.IntN(100); calm {
				o.Way = 2
			}
		case "many":
			o.ID, o.N = strconv.Itoa(len(list)), 1+r.IntN(120)
		case "limit":
			o.N = 2 + r.IntN(5)
		}
		list = append(list, o)
	}
	return list
}
