package images

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"time"

	"ecs/agent/runtime"
	"ecs/internal/task"
)

// permissionKey is one caller's use of one reference. A caller is an owner with
// certain credentials, so permission is shared neither between owners nor
// between what one owner may with and without a password.
type permissionKey struct {
	ref    string // the registry's name for it
	caller string
}

// permission is the registry's word that a caller may have what a reference
// meant at that time.
type permission struct {
	digest  string
	checked time.Time // when the registry said so
	until   time.Time // not asked again before
}

func (p permission) fresh(now time.Time) bool { return now.Before(p.until) }

// callers turns credentials into names that tell nothing about them.
type callers struct{ key []byte }

func newCallers() callers {
	key := make([]byte, 32)
	rand.Read(key) // never fails
	return callers{key: key}
}

func (c callers) name(q Request) string {
	mac := hmac.New(sha256.New, c.key)
	parts := []string{q.Owner}
	if !anonymous(q.Auth) {
		parts = append(parts, q.Auth.Username, q.Auth.Password)
	}
	for _, part := range parts {
		// The length in front keeps ("ab", "c") and ("a", "bc") apart.
		mac.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		mac.Write([]byte(part))
	}
	return string(mac.Sum(nil))
}

// anonymous reports whether a caller shows no credentials. A name without a
// password is none: registries are not sent it.
func anonymous(a *task.RegistryAuth) bool {
	return a == nil || a.Username == "" || a.Password == ""
}

// permit has the registry checked for the caller, at most once for all of his
// tasks that wait for it now.
func (i *Images) permit(ctx context.Context, ref reference, key permissionKey, auth *task.RegistryAuth) (permission, error) {
	return i.checks.do(ctx, key, func(ctx context.Context) (permission, error) {
		began := time.Now()
		if p, ok := i.allowed.Get(key); ok && p.fresh(began) {
			return p, nil // a flight that has just landed brought it
		}
		digest, err := i.ask(ctx, ref, auth)
		i.measure(metricCheck, began, err)
		return i.remember(ctx, ref, key, digest, err)
	})
}

// remember keeps what the registry said. When the registry could not say
// anything, an earlier word is good enough for an image that is here.
func (i *Images) remember(ctx context.Context, ref reference, key permissionKey, digest string, err error) (permission, error) {
	now := time.Now()
	if err == nil {
		p := permission{digest: digest, checked: now, until: now.Add(Fresh)}
		i.allowed.Add(key, p)
		return p, nil
	}
	if ctx.Err() != nil {
		return permission{}, err // nobody waits any more, and the registry said nothing
	}
	switch outcome(err) {
	case task.ImageUnavailable:
		p, ok := i.allowed.Peek(key)
		if !ok || now.Sub(p.checked) >= Stale {
			return permission{}, err
		}
		if _, missing := i.cfg.Store.Inspect(ctx, ref.at(p.digest)); missing != nil {
			return permission{}, err
		}
		i.cfg.Log.Warn("registry can't be reached, its last word is used", "image", ref.asked, "registry", ref.registry(),
			"age", now.Sub(p.checked).Round(time.Second), "err", err)
		i.cfg.Metrics.IncrCounter(metricStale, 1)
		p.until = now.Add(staleStep)
		i.allowed.Add(key, p)
		return p, nil
	case task.ImageDenied, task.ImageNotFound:
		i.allowed.Remove(key)
	}
	return permission{}, err
}

// outcome is what a *runtime.Failure says, and empty for any other error.
func outcome(err error) task.Outcome {
	var f *runtime.Failure
	if errors.As(err, &f) {
		return f.Outcome
	}
	return ""
}
