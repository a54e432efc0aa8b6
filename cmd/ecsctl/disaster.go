package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"ecs/control/replica"
	"ecs/control/state"
	"ecs/internal/daemon"
	"ecs/internal/pki"
	"ecs/proto/api"
)

func (a *app) clusterSnapshot() *cobra.Command {
	return &cobra.Command{Use: "snapshot FILE", Short: "Save the whole record of tasks and nodes to a file", Args: exactlyOne("a file"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			defer client.Close()
			about, err := saveSnapshot(c.Context(), client, args[0])
			if err != nil {
				return fmt.Errorf("save the cluster: %w", err)
			}
			return a.done(about)
		}}
}

// saveSnapshot writes a snapshot and checks it; what is not whole leaves no file.
func saveSnapshot(ctx context.Context, client *api.Client, path string) (about string, err error) {
	part := path + ".part"
	f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return "", err
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			err = errors.Join(err, os.Remove(part))
			return
		}
		err = os.Rename(part, path)
	}()
	if err := client.Save(ctx, f); err != nil {
		return "", err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	record, _, err := state.OpenArchive(f)
	if err != nil {
		return "", err
	}
	store := state.NewStore(state.Limits{})
	if err := store.Restore(record); err != nil {
		return "", err
	}
	sn := store.Snapshot()
	counts := sn.Counts()
	return fmt.Sprintf("saved %s: cluster %s, incarnation %d, index %d, %d tasks", path, sn.Cluster(), sn.Incarnation(), sn.Index(),
		counts.Pending+counts.Live+counts.Finished), f.Sync()
}

const restoreWarning = `This makes a new cluster of the snapshot, of this control node alone. What happened
after the snapshot was taken is gone, and tasks that ran then may run again.
 - API keys and certificates that were revoked after it are good again: revoke them
   anew. Keys made after it are gone. No join token is left.
 - At-most-once tasks that wait in it may have run: they end node_lost.
Nothing of the old cluster may run any more.
`

const recoverWarning = `This makes a cluster of this control node alone, out of what is on its disk.
 - What the others had accepted and this one had not is gone.
 - The other control nodes must never start again with what they have: their data
   directories have to be emptied first. Two halves would both accept tasks.
 - Agents register anew and end what they run: at-most-once tasks that ran end
   node_lost, at-least-once ones run again.
 - What waits here may have been started on the others' word. It is held back for
   its lease (12 s unless it asked for more), so that it does not run twice at the
   same time; it may run a second time. At-most-once tasks that wait are not run:
   they end node_lost after 5 min.
 - API keys and certificates whose revocation only the others had accepted are good
   again: compare "ecsctl keys ls" with what you know, and revoke them anew. No join
   token is left.
Do it only when a majority of the control nodes is gone for good.
`

func (a *app) clusterRestore() *cobra.Command {
	var dataDir, cert, raftAddr string
	var yes bool
	c := &cobra.Command{Use: "restore FILE", Args: exactlyOne("the file of a snapshot"),
		Short: "Put a snapshot into the empty data directory of a new cluster's first control node",
		Long:  "Run it on the machine of the control node, while that is stopped. Start it afterwards;\nfurther ones join it empty.\n\n" + restoreWarning}
	c.Flags().StringVar(&dataDir, "data-dir", dataDirs[0], "the control node's data `directory`")
	c.Flags().StringVar(&cert, "cert", "/etc/ecs/node.crt", "the control node's certificate, a PEM `file`")
	c.Flags().StringVar(&raftAddr, "raft-addr", "", "`host:port` at which others are to reach its Raft")
	c.Flags().BoolVar(&yes, "yes", false, "do it without a question")
	c.RunE = func(_ *cobra.Command, args []string) error {
		if err := daemon.CheckAddr("raft-addr", raftAddr); err != nil {
			return usage("%w", err)
		}
		id, err := pki.IdentityInFile(cert)
		if err != nil {
			return err
		}
		if id.Role != pki.RoleControl {
			return fmt.Errorf("%s is the certificate of an %s, not of a control node", cert, id.Role)
		}
		if err := a.sure(restoreWarning, yes); err != nil {
			return err
		}
		f, err := os.Open(args[0])
		if err != nil {
			return err
		}
		defer f.Close()
		record, term, err := state.OpenArchive(f)
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		return a.rebuild(dataDir, id.ID, func(log *slog.Logger) (*replica.Recovery, error) {
			return replica.Restore(filepath.Join(dataDir, "raft"), id.ID, raftAddr, record, term, log)
		})
	}
	return c
}

func (a *app) clusterRecover() *cobra.Command {
	var dataDir string
	var yes bool
	c := &cobra.Command{Use: "recover", Args: none,
		Short: "Make a cluster of one surviving control node, when the majority is gone for good",
		Long:  "Run it on the machine of the survivor, while its daemon is stopped. Start it\nafterwards; further control nodes join it empty.\n\n" + recoverWarning}
	c.Flags().StringVar(&dataDir, "data-dir", dataDirs[0], "the surviving control node's data `directory`")
	c.Flags().BoolVar(&yes, "yes", false, "do it without a question")
	c.RunE = func(*cobra.Command, []string) error {
		id, err := os.ReadFile(filepath.Join(dataDir, "node-id"))
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s is not the data directory of a node", dataDir)
		}
		if err != nil {
			return err
		}
		if err := a.sure(recoverWarning, yes); err != nil {
			return err
		}
		return a.rebuild(dataDir, strings.TrimSpace(string(id)), func(log *slog.Logger) (*replica.Recovery, error) {
			return replica.Recover(filepath.Join(dataDir, "raft"), strings.TrimSpace(string(id)), log)
		})
	}
	return c
}

// rebuild takes the data directory for as long as its content is made anew.
func (a *app) rebuild(dataDir, id string, make func(*slog.Logger) (*replica.Recovery, error)) error {
	if err := ownedByUs(dataDir); err != nil {
		return err
	}
	data, err := daemon.OpenDataDir(dataDir, id)
	if err != nil {
		return fmt.Errorf("is the daemon stopped? %w", err)
	}
	log := slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	made, err := make(log)
	if err := errors.Join(err, data.Close()); err != nil {
		return err
	}
	a.progress(fmt.Sprintf("incarnation %d of cluster %s, by recovery %s: %d tasks, %d of which ran, and %d agents", made.Incarnation, made.Cluster, made.ID, made.Tasks, made.Live, made.Nodes))
	for _, other := range made.Others {
		a.progress(fmt.Sprintf("control node %s is no member any more: empty its data directory before it starts again", other))
	}
	return a.done("start the control node now; others join it empty")
}

// ownedByUs refuses to leave files that the daemon could not read.
func ownedByUs(dir string) error {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is not there: make it first, as the daemon's user", dir)
	}
	if err != nil {
		return err
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && int(owner.Uid) != os.Geteuid() {
		return usage("%s belongs to another user: run this as that one (sudo -u '#%d' ecsctl cluster ...)", dir, owner.Uid)
	}
	return nil
}

// sure asks, unless told not to.
func (a *app) sure(warning string, yes bool) error {
	fmt.Fprint(a.stderr, warning)
	if yes {
		return nil
	}
	fmt.Fprint(a.stderr, "Type yes to go on (or give --yes): ")
	answer, err := bufio.NewReader(a.stdin).ReadString('\n')
	if strings.TrimSpace(answer) == "yes" {
		return nil
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return usage("nothing was changed")
}
