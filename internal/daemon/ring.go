package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"ecs/internal/clusterfiles"
	"ecs/internal/gossip"
)

// keptRing is the content of clusterfiles.GossipRing, which is for its owner only.
type keptRing struct {
	Version uint64   `json:"version"`
	Keys    [][]byte `json:"keys"` // the first encrypts
	// Began is the id of the key in the settings' file that the ring began with. Once
	// an operator puts another key there, that one counts, until the cluster gives a
	// ring again.
	Began string `json:"began"`
}

// Keyring gives the node the gossip keys that it had last, or else the key of its
// settings, and keeps those that follow.
func (d *DataDir) Keyring(fromSettings []byte) (*gossip.Keyring, error) {
	began := gossip.KeyID(fromSettings)
	start := gossip.Ring{Keys: [][]byte{fromSettings}}
	text, err := os.ReadFile(d.Path(clusterfiles.GossipRing))
	if err == nil {
		var kept keptRing
		if err = json.Unmarshal(text, &kept); err == nil && kept.Began == began {
			start = gossip.Ring{Version: kept.Version, Keys: kept.Keys}
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the gossip keys in %s (without the file the node begins with --gossip-key again): %w", d.Path(clusterfiles.GossipRing), err)
	}
	keyring, err := gossip.NewKeyring(start, func(r gossip.Ring) error {
		text, err := json.Marshal(keptRing{Version: r.Version, Keys: r.Keys, Began: began})
		if err != nil {
			return err
		}
		return writeSynced(d.Path(clusterfiles.GossipRing), string(text)+"\n")
	})
	if err != nil {
		return nil, fmt.Errorf("use the gossip keys in %s: %w", d.Path(clusterfiles.GossipRing), err)
	}
	return keyring, nil
}
