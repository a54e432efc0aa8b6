// Command ecs-control is a control node of ECS.
package main

import (
	"os"
	"os/signal"
	"syscall"

	"ecs/internal/daemon"
)

func main() {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	os.Exit(program().Main(os.Args[1:], os.Stdout, os.Stderr, signals))
}

func program() daemon.Program {
	o := new(options)
	return daemon.Program{Name: "ecs-control", Define: o.define, Check: o.check, Run: o.run}
}
