package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ecs/internal/verify"
)

func (a *app) verifyCommand() *cobra.Command {
	c := &cobra.Command{Use: "verify", Short: "Call every operation of a service once and say whether it answers as it must",
		Long: "Call every v1 and v2 operation of each endpoint once, one line each. Exit status 1 when one of them\n" +
			"did not answer as its contract says. It runs a few tasks of its own, and drains no node unless --drain\n" +
			"is given. What the key's role does not allow is skipped, and a limit of the key is waited for.",
		Args: none}
	image := c.Flags().String("image", "ecs-demo/busybox:1", "`image` to run; it needs sh, echo, sleep and cat")
	drain := c.Flags().Bool("drain", false, "also drain a node, and undrain it at once")
	c.RunE = func(c *cobra.Command, _ []string) error {
		list, key, secret, roots, err := a.access()
		if err != nil {
			return err
		}
		var failed []error
		for _, endpoint := range list {
			target := verify.Target{Endpoint: endpoint, Key: key, Secret: secret, Roots: roots, Image: *image, Drain: *drain}
			if err := verify.Run(c.Context(), target, a.tellCheck); err != nil {
				failed = append(failed, fmt.Errorf("%s: %w", endpoint, err))
			}
		}
		return errors.Join(failed...)
	}
	return c
}

func (a *app) tellCheck(r verify.Result) {
	verdict, why := "ok", ""
	switch {
	case errors.Is(r.Err, verify.ErrSkipped):
		verdict, why = "skip", strings.TrimPrefix(r.Err.Error(), verify.ErrSkipped.Error())
	case r.Err != nil:
		verdict, why = "FAIL", ": "+r.Err.Error()
	}
	fmt.Fprintf(a.stdout, "%-4s %7s  %-22s %s%s\n", verdict, r.Took.Round(time.Millisecond), r.Operation, r.What, strings.ReplaceAll(printable(why), "\n", " "))
}
