package segment

import (
	"fmt"
	"strconv"

	"isospin/internal/config"
)

// PhysicalMTU tells the MTU of physical networks: [ml2] physical_network_mtus,
// and [DEFAULT] global_physnet_mtu for the others.
func PhysicalMTU(c *config.Config) (func(physicalNetwork string) int, error) {
	each := map[string]int{}
	for name, text := range config.ML2PhysicalNetworkMTUs.Of(c) {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("[ml2] physical_network_mtus: %q is not a number of bytes; write physnet1:9000", name+":"+text)
		}
		each[name] = n
	}
	all := config.GlobalPhysnetMTU.Of(c)
	return func(name string) int {
		if n, ok := each[name]; ok && (all == 0 || n < all) {
			return n
		}
		return all
	}, nil
}
