package state

// Lineage says which past a record is of: the cluster's, and the last recovery's.
type Lineage struct{ Cluster, Recovery string }

// Lineage is the record's. It is empty before the cluster has a name.
func (sn *Snapshot) Lineage() Lineage {
	return Lineage{Cluster: sn.cluster, Recovery: sn.recovery}
}

// Foreign reports whether two records have gone different ways. One without a name
// is foreign to none: it is about to become what others are.
func (l Lineage) Foreign(other Lineage) bool {
	return l.Cluster != "" && other.Cluster != "" && l != other
}
