package api

// TaskRequestV1 is the body of POST /v1.1/tasks and, with Tag, of POST
// /v1.0/tasks.
type TaskRequestV1 struct {
	DockerImage string        `json:"docker_image"`
	Tag         string        `json:"tag,omitempty"` // v1.0 only
	Cmd         []string      `json:"cmd"`
	Creds       *RegistryAuth `json:"creds,omitempty"`
}

// TaskResultV1 is the body of its 201 answer; the streams are base64.
type TaskResultV1 struct {
	ExitCode int    `json:"exitCode"`
	Stdout   string `json:"stdout"`
	Stderr   string `json:"stderr"`
}

// Links is what every answer of v1's underscore routes carries.
type Links struct {
	Self Link `json:"self"`
}

// Link is one hyperlink.
type Link struct {
	Href string `json:"href"`
}

// NoopV1 is the answer of GET /v1.1/_noop.
type NoopV1 struct {
	Links Links `json:"links"`
}

// VersionV1 is the answer of GET /v1.1/_version.
type VersionV1 struct {
	Version string `json:"version"`
	Links   Links  `json:"links"`
}

// HealthV1 is the answer of GET /v1.1/_health.
type HealthV1 struct {
	Status  string                  `json:"status"` // green | red
	Details map[string]HealthPartV1 `json:"details"`
	Links   Links                   `json:"links"`
}

// HealthPartV1 is one part of the service in a health answer.
type HealthPartV1 struct {
	Status  string            `json:"status"` // green | red
	Details map[string]string `json:"details,omitempty"`
}
