// Command build makes the images that the tests and the demo run. With -demo
// it makes the demo's only, with -rm it removes
// all of them.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"github.com/docker/docker/client"

	"ecs/test/images"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "build images:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("build", flag.ContinueOnError)
	remove := flags.Bool("rm", false, "remove the images")
	demo := flags.Bool("demo", false, "make the demo's image only")
	if err := flags.Parse(args); err != nil {
		return err
	}
	c, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err != nil {
		return err
	}
	defer c.Close()
	if *remove {
		return images.Remove(ctx, c)
	}
	if err := images.EnsureDemo(ctx, c); err != nil || *demo {
		return err
	}
	return images.Ensure(ctx, c)
}
