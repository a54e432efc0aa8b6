package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ecs/internal/clusterfiles"
	"ecs/internal/pki"
	"ecs/proto/api"
)

func (a *app) caToken() *cobra.Command {
	var role string
	var ttl time.Duration
	c := &cobra.Command{Use: "token", Short: "Make a join token: prints it, once (takes an admin key and a control node with --ca-key)", Args: none}
	c.Flags().StringVar(&role, "role", "", "`role` of the node that may use it: control or agent")
	c.Flags().DurationVar(&ttl, "ttl", api.DefaultTokenTTL, "how `long` it is good, 1h at most")
	json := asJSON(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		client, err := a.client()
		if err != nil {
			return err
		}
		defer client.Close()
		t, err := client.MakeToken(c.Context(), api.TokenRequest{Role: role, TTL: api.Duration(ttl)})
		if err != nil {
			return fmt.Errorf("make a join token: %w", err)
		}
		if *json {
			return printJSON(a.stdout, t)
		}
		fmt.Fprintln(a.stdout, t.Token)
		a.say("good for one %s, until %s", t.Role, t.ExpiresAt.Local().Format(time.TimeOnly))
		return nil
	}
	return c
}

func (a *app) caTokens() *cobra.Command {
	c := &cobra.Command{Use: "tokens", Short: "List join tokens, used and old ones included, without their secrets (takes an admin key)", Args: none}
	json := asJSON(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		client, err := a.client()
		if err != nil {
			return err
		}
		defer client.Close()
		list, err := client.Tokens(c.Context())
		if err != nil {
			return fmt.Errorf("list join tokens: %w", err)
		}
		if *json {
			return printJSON(a.stdout, api.TokenList{Tokens: list})
		}
		t := &table{header: []string{"ID", "ROLE", "STATE", "AGE", "BY", "NODE"}}
		for _, v := range list {
			t.add(v.ID[:min(len(v.ID), 12)], v.Role, v.State, age(v.CreatedAt, time.Now()), v.CreatedBy, v.Node)
		}
		return t.print(a.stdout)
	}
	return c
}

func (a *app) caWithdraw() *cobra.Command {
	c := &cobra.Command{Use: "withdraw ID", Short: "Have a join token admit nobody; ID as `ecsctl ca tokens` prints it (takes an admin key)", Args: exactlyOne("the id of a token")}
	c.RunE = func(c *cobra.Command, args []string) error {
		client, err := a.client()
		if err != nil {
			return err
		}
		defer client.Close()
		t, err := client.WithdrawToken(c.Context(), args[0])
		if err != nil {
			return fmt.Errorf("withdraw join token %s: %w", args[0], named(err, listsTokens))
		}
		fmt.Fprintf(a.stdout, "%s %s\n", cell(t.ID), cell(t.State))
		return nil
	}
	return c
}

func (a *app) caRequest() *cobra.Command {
	var token, role string
	c := &cobra.Command{Use: "request OUT", Short: "Get a new node's certificate and keys for a join token, into the directory OUT", Args: exactlyOne("a directory for the node's files")}
	c.Flags().StringVar(&token, "token", "", "the join `token` (ECS_JOIN_TOKEN)")
	c.Flags().StringVar(&role, "role", api.NodeAgent, "`role` of the node: control or agent, as the token's")
	c.RunE = func(c *cobra.Command, args []string) error {
		if role != api.NodeAgent && role != api.NodeControl {
			return usage("--role %q: want %s or %s", role, api.NodeControl, api.NodeAgent)
		}
		parsed, err := a.joinToken(token)
		if err != nil {
			return err
		}
		places := clusterfiles.In(args[0])
		got, err := a.admit(c.Context(), parsed, role, places)
		if err != nil {
			return err
		}
		fmt.Fprintf(a.stdout, "%s  for %s %s of cluster %s\njoin through %s\n", places.Cert,
			cell(role), cell(got.Node), cell(got.Cluster), cell(strings.Join(got.Join, ",")))
		return nil
	}
	return c
}

// joinToken reads the token that was given, here or in the environment.
func (a *app) joinToken(given string) (api.JoinToken, error) {
	text := a.pick(given, "ECS_JOIN_TOKEN", "")
	if text == "" {
		return api.JoinToken{}, usage("a token is needed: make one with `ecsctl ca token`, and give it with --token or ECS_JOIN_TOKEN")
	}
	token, err := api.ParseJoinToken(text)
	if err != nil {
		return token, usage("%w", err)
	}
	return token, nil
}

// admit uses a token up for a certificate and writes all that comes with it.
func (a *app) admit(ctx context.Context, token api.JoinToken, role string, places clusterfiles.Places) (*api.Admitted, error) {
	if err := sealed(a.endpoints()); err != nil {
		return nil, err
	}
	// Before the token is used up.
	if err := places.Free(); err != nil {
		return nil, fmt.Errorf("files of a node are never written over: move it away if it is not wanted: %w", err)
	}
	a.key, a.secret = "join", "token" // the token is the key; the service asks for no other
	client, err := a.client()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	request, key, err := pki.NewRequest()
	if err != nil {
		return nil, err
	}
	got, err := client.Admit(ctx, api.Admission{Token: token.String(), Role: role, Request: string(request)})
	switch {
	case errors.Is(err, &api.Problem{Code: api.CodeToken}):
		return nil, fmt.Errorf("%w; make a new one, where an admin key is: ecsctl ca token --role %s", err, role)
	case err != nil:
		return nil, fmt.Errorf("join with a token through %s: %w", strings.Join(a.endpoints(), ","), err)
	}
	files, err := admitted(token, got, key)
	if err != nil {
		return nil, err
	}
	if err := clusterfiles.WriteAdmission(places, files); err != nil {
		return nil, fmt.Errorf("keep what the token brought (it is used up: make another): %w", err)
	}
	return got, nil
}

// admitted checks that the answer is of the authority that the token names, and
// that it is for this key.
func admitted(token api.JoinToken, got *api.Admitted, key []byte) (clusterfiles.Admission, error) {
	authority, cert := []byte(got.Authority), []byte(got.Certificate)
	pin, err := pki.Pin(authority)
	if err == nil && pin != token.Pin {
		err = errors.New("the answer is of another authority than the token names: somebody else answered")
	}
	if err == nil {
		_, err = pki.NewNode(authority, cert, key)
	}
	gossipKey, gossipErr := base64.StdEncoding.DecodeString(got.GossipKey)
	sealKey, sealErr := base64.StdEncoding.DecodeString(got.SealKey)
	return clusterfiles.Admission{Authority: authority, Cert: cert, Key: key, GossipKey: gossipKey, SealKey: sealKey},
		errors.Join(err, gossipErr, sealErr)
}

func (a *app) caRevoke() *cobra.Command {
	var r api.RevocationRequest
	c := &cobra.Command{Use: "revoke", Short: "Have control nodes accept a node's certificates, or one, no more", Args: none}
	c.Flags().StringVar(&r.Node, "node", "", "`id` or name of a node: all certificates that it has so far")
	c.Flags().StringVar(&r.Serial, "serial", "", "serial `number` of one certificate, hexadecimal, as openssl x509 -serial prints it")
	c.Flags().BoolVar(&r.Force, "force", false, "also a node that the cluster does not know; --node is then the id in its certificate")
	c.RunE = func(c *cobra.Command, _ []string) error {
		client, err := a.client()
		if err != nil {
			return err
		}
		defer client.Close()
		v, err := client.RevokeCertificate(c.Context(), r)
		if err != nil {
			return fmt.Errorf("revoke a certificate: %w", named(err, listsMembers))
		}
		fmt.Fprintf(a.stdout, "revoked %s%s\n", cell(v.Node), cell(v.Serial))
		return nil
	}
	return c
}

func (a *app) caRevoked() *cobra.Command {
	c := &cobra.Command{Use: "revoked", Short: "List the certificates that control nodes accept no more", Args: none}
	json := asJSON(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		client, err := a.client()
		if err != nil {
			return err
		}
		defer client.Close()
		list, err := client.Revocations(c.Context())
		if err != nil {
			return fmt.Errorf("list revoked certificates: %w", err)
		}
		if *json {
			return printJSON(a.stdout, api.RevocationList{Revocations: list})
		}
		t := &table{header: []string{"NODE", "SERIAL", "AGE", "BY"}}
		for _, v := range list {
			t.add(v.Node, v.Serial, age(v.RevokedAt, time.Now()), v.RevokedBy)
		}
		return t.print(a.stdout)
	}
	return c
}
