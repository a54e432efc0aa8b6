package state

// IndexSizes is how much the orders hold that readers can't count: what they
// lead to may be gone.
func (sn *Snapshot) IndexSizes() map[string]int {
	return map[string]int{
		"accepted": sn.accepted.Len(),
		"owners":   sn.owners.Len(),
		"keys":     sn.keys.Len(),
		"ended":    sn.ended.Len(),
		"due":      sn.due.Len(),
		"on":       sn.on.Len(),
	}
}
