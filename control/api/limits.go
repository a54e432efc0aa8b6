package api

import (
	"cmp"
	"fmt"
	"net/http"
	"time"

	"ecs/internal/access"
	"ecs/proto/api"
)

// Limits bound what callers take of one node. 0 is no limit. What a key of the
// record has of its own comes before the first three, and who calls with such a
// key is not counted by its address.
type Limits struct {
	KeyRate        int // requests a second of one key
	KeyConcurrency int // its requests at once, long polls included
	KeyQuota       int // its tasks that wait for a node, in the whole cluster

	AddressRate, AddressConcurrency int // of one address, before it is known who calls
	DocsRate, DocsConcurrency       int // of one address, for what needs no key
}

// DefaultLimits are those of the original service, and half of the queue for one
// key.
func DefaultLimits() Limits {
	return Limits{KeyRate: 5, KeyConcurrency: 25, KeyQuota: 50_000, AddressRate: 10, AddressConcurrency: 5, DocsRate: 10, DocsConcurrency: 10}
}

// The names of limits, as problems tell them.
const (
	limitGuesses            = "guesses"
	limitKeyRate            = "key_rate"
	limitKeyConcurrency     = "key_concurrency"
	limitKeyQuota           = "key_quota"
	limitAddressRate        = "address_rate"
	limitAddressConcurrency = "address_concurrency"
	limitDocsRate           = "docs_rate"
	limitDocsConcurrency    = "docs_concurrency"
	limitLogsConcurrency    = "logs_concurrency"
	limitBodyRate           = "body_rate"
)

// maxGatherings is how many may gather log lines through this node at once: each
// asks every node there is.
const maxGatherings = 4

// gates count what is in progress.
type gates struct {
	limits               Limits
	keys, addresses, doc *limiter
	logs                 *limiter      // gatherings of log lines, by key
	gatherings           chan struct{} // those of all
	tokens               *limiter      // join tokens that nobody knows, by address
	// Bodies that are waited for although their request is refused, and of whom.
	patients chan struct{}
	patience *limiter
}

func newGates(l Limits) *gates {
	return &gates{limits: l, keys: newLimiter(maxAddresses), addresses: newLimiter(maxAddresses), doc: newLimiter(maxAddresses), tokens: newLimiter(maxAddresses),
		logs: newLimiter(maxAddresses), gatherings: make(chan struct{}, maxGatherings), patients: make(chan struct{}, maxPatience), patience: newLimiter(maxAddresses)}
}

// guesses is how often an address may be wrong.
func guesses() bound { return bound{rate: float64(guessesPerMinute) / 60, burst: guessBurst} }

// gather begins a gathering of log lines. What it gives ends it.
func (g *gates) gather(who string, now time.Time) (func(), error) {
	end, err := g.logs.take(who, bound{atOnce: 1}, [2]string{"", limitLogsConcurrency}, now)
	if err != nil {
		return nil, err
	}
	select {
	case g.gatherings <- struct{}{}:
		return func() { <-g.gatherings; end() }, nil
	default:
		end()
		return nil, &api.Problem{Code: api.CodeBusy, Detail: "this node gathers log lines for as many as it may; try again or ask another"}
	}
}

// paced is a bound whose burst is a second's worth.
func paced(rate, atOnce int) bound { return bound{rate: float64(rate), burst: rate, atOnce: atOnce} }

func (g *gates) docs(r *http.Request, now time.Time) (func(), error) {
	return g.doc.take(addressOf(r), paced(g.limits.DocsRate, g.limits.DocsConcurrency),
		[2]string{limitDocsRate, limitDocsConcurrency}, now)
}

// address lets who is known by a key with limits of its own pass.
func (g *gates) address(r *http.Request, own access.Limits, now time.Time) (func(), error) {
	b := paced(g.limits.AddressRate, g.limits.AddressConcurrency)
	if own.Rate != 0 {
		b.rate = 0
	}
	if own.Concurrency != 0 {
		b.atOnce = 0
	}
	return g.addresses.take(addressOf(r), b, [2]string{limitAddressRate, limitAddressConcurrency}, now)
}

func (g *gates) key(p access.Principal, now time.Time) (func(), error) {
	l := g.of(p)
	return g.keys.take(p.Owner, paced(max(l.Rate, 0), max(l.Concurrency, 0)), [2]string{limitKeyRate, limitKeyConcurrency}, now)
}

// again counts a request that is part of another one.
func (g *gates) again(p access.Principal, now time.Time) error {
	_, err := g.keys.take(p.Owner, paced(max(g.of(p).Rate, 0), 0), [2]string{limitKeyRate, limitKeyConcurrency}, now)
	return err
}

// of are a key's limits, its own before those of the node.
func (g *gates) of(p access.Principal) access.Limits {
	return p.Limits.Over(access.Limits{Rate: cmp.Or(g.limits.KeyRate, access.NoLimit),
		Concurrency: cmp.Or(g.limits.KeyConcurrency, access.NoLimit), Quota: cmp.Or(g.limits.KeyQuota, access.NoLimit)})
}

// admit answers a request that is beyond a limit, without a key where one is
// needed, or with one that may not do this, and then gives false. Else end is to
// be called when the request is done.
func (h *Handler) admit(w http.ResponseWriter, r *http.Request, open bool) (end func(), ok bool) {
	refuse := func(err error) (func(), bool) {
		h.gates.turnAway(w, r)
		h.fail(w, r, err)
		return nil, false
	}
	if h.isPage(r.URL.Path) {
		end, err := h.admitVisitor(r)
		if err != nil {
			h.gates.turnAway(w, r)
			h.refusedPage(w, r, err)
		}
		return end, err == nil
	}
	if open {
		end, err := h.gates.docs(r, time.Now())
		if err != nil {
			return refuse(err)
		}
		return end, true
	}
	key, secret, given := r.BasicAuth()
	who, known := access.Principal{}, false
	if given {
		who, known = h.cfg.Auth.Remembered(key, secret)
	}
	endAddress, err := h.gates.address(r, who.Limits, time.Now())
	if err != nil {
		return refuse(err)
	}
	if !known {
		holdOpen(w) // a check may have to wait for longer than a request may take to come
		who, err = h.authenticate(r, key, secret, given)
		if r.Body != http.NoBody { // else the server waits for the client to go, which a deadline looks like
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(readTimeout)) // a writer without deadlines is a test's
		}
		if err != nil {
			endAddress()
			return refuse(err)
		}
	}
	exchangeOf(r).principal, exchangeOf(r).owner = who, who.Owner
	endKey, err := h.gates.key(who, time.Now())
	if err != nil {
		endAddress()
		return refuse(err)
	}
	knownOn(r) // what its limits refuse keeps no connection
	return func() { endKey(); endAddress() }, true
}

// problemOfExcess says which limit is reached and when to come back.
func problemOfExcess(e *Excess) *api.Problem {
	p := &api.Problem{Code: api.CodeRateLimited, Limit: e.Limit, RetryAfter: e.RetryAfter}
	switch e.Limit {
	case limitGuesses:
		p.Detail = "too many wrong keys or secrets came from this address"
	case limitKeyConcurrency, limitAddressConcurrency, limitDocsConcurrency, limitLogsConcurrency:
		p.Detail = fmt.Sprintf("too many requests are in progress (%s); end some first", e.Limit)
	default:
		p.Detail = fmt.Sprintf("too many requests came (%s)", e.Limit)
	}
	return p
}
