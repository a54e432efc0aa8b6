package main

import (
	"strings"

	"ecs/proto/api"
)

const defaultEndpoint = "http://127.0.0.1:8448"

// access gives what flags and environment say of the service and the caller.
func (a *app) access() (urls []string, key, secret string, err error) {
	pick := func(flag, name, otherwise string) string {
		if flag != "" {
			return flag
		}
		if value := a.env(name); value != "" {
			return value
		}
		return otherwise
	}
	endpoint := pick(a.endpoint, "ECS_ENDPOINT", defaultEndpoint)
	key, secret = pick(a.key, "ECS_KEY", ""), pick(a.secret, "ECS_SECRET", "")
	if key == "" || secret == "" {
		return nil, "", "", usage("key and secret are needed: set ECS_KEY and ECS_SECRET, or give --api-key and --api-secret (`ecsctl dev status` prints those of a cluster on this machine)")
	}
	return endpoints(endpoint), key, secret, nil
}

// client connects as flags and environment say.
func (a *app) client() (*api.Client, error) {
	urls, key, secret, err := a.access()
	if err != nil {
		return nil, err
	}
	c, err := api.New(urls, key, secret)
	if err != nil {
		return nil, usage("%w", err)
	}
	return c, nil
}

// endpoints splits a list of URLs; a host alone is taken for http://host.
func endpoints(list string) []string {
	var urls []string
	for _, e := range strings.Split(list, ",") {
		e = strings.TrimSpace(e)
		if e == "" {
			continue
		}
		if !strings.Contains(e, "://") {
			e = "http://" + e
		}
		urls = append(urls, e)
	}
	return urls
}
