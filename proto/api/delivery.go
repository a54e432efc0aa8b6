package api

// The promises a caller may choose for a task's attempts.
const (
	DeliveryAtLeastOnce = "at_least_once" // repeated within the retry budget
	DeliveryAtMostOnce  = "at_most_once"  // never repeated once it may have started
)
