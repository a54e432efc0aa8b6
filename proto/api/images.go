package api

// Image is one image that nodes hold, or that containers are wished for of.
type Image struct {
	Image  string `json:"image"`
	Nodes  int    `json:"nodes"`          // that hold it, of those connected
	Warm   int    `json:"warm,omitempty"` // containers wished for, over the whole cluster
	Parked int    `json:"parked"`         // of those, how many wait for a task
}

// ImageList is what nodes say of their engines' images, by name. It is a few
// seconds old.
type ImageList struct {
	Images []Image `json:"images"`
	More   bool    `json:"more,omitempty"` // there are others, which have no room here
	// Notes say, for people, what is in the way of wishes as things are, and what to do.
	Notes []string `json:"notes,omitempty"`
}

// WarmRequest asks for containers that are started ahead of tasks that ask for an
// image and nothing else that a container is fixed to: so many over the whole
// cluster, in the place of what was wished for before. 0 takes it back.
type WarmRequest struct {
	Image string `json:"image"`
	Count int    `json:"count"`
}

// WarmAnswer is the wish as it is on record.
type WarmAnswer struct {
	Image string `json:"image"`
	Count int    `json:"count"`
	// Notes say, for people, what is in its way as things are, and what to do.
	Notes []string `json:"notes,omitempty"`
}
