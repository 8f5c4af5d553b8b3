package main

import (
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"isospin/internal/lab"
)

func newLabCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "Look into the cloud that `isospin up` runs",
	}
	var id string
	cmd.PersistentFlags().StringVar(&id, "lab", "", "id of the lab, if several run")
	exec := &cobra.Command{
		Use:     "exec NAME [--] COMMAND [ARGUMENT...]",
		Short:   "Run a command on a host or in an instance",
		Example: "  isospin lab exec host1 -- ovs-vsctl show\n  isospin lab exec vm1 -- ip addr",
		Args:    cobra.MinimumNArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			record, err := oneLab(id)
			if err != nil {
				return err
			}
			node, err := record.Node(args[0])
			if err != nil {
				return err
			}
			if args = args[1:]; args[0] == "--" && len(args) > 1 {
				args = args[1:]
			}
			return record.Exec(node, args[0], args[1:]...)
		},
	}
	// What follows the name belongs to the command that is run.
	exec.Flags().SetInterspersed(false)
	cmd.AddCommand(exec, newSimulateCommand(), &cobra.Command{
		Use:   "status",
		Short: "Show the labs that run, with their hosts and instances",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return labStatus(cmd, id) },
	})
	return cmd
}

// oneLab returns the lab of that id, or the only one.
func oneLab(id string) (*lab.Record, error) {
	running, err := lab.Running("")
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, r := range running {
		if r.ID == id || id == "" && len(running) == 1 {
			return r, nil
		}
		ids = append(ids, r.ID)
	}
	switch {
	case len(running) == 0:
		return nil, errors.New("no lab runs; `isospin up` starts one")
	case id == "":
		return nil, fmt.Errorf("several labs run, choose one with --lab: %q", ids)
	}
	return nil, fmt.Errorf("no lab %s runs; there are %q", id, ids)
}

func labStatus(cmd *cobra.Command, id string) error {
	running, err := lab.Running("")
	if err != nil {
		return err
	}
	if id != "" {
		r, err := oneLab(id)
		if err != nil {
			return err
		}
		running = []*lab.Record{r}
	}
	out := cmd.OutOrStdout()
	if len(running) == 0 {
		fmt.Fprintln(out, "No lab runs; `isospin up` starts one.")
		return nil
	}
	for _, r := range running {
		fmt.Fprintf(out, "lab %s: %s, process %d, up for %s, data in %s\n", r.ID, r.Endpoint, r.PID,
			time.Since(r.Started).Round(time.Second), r.DataDir)
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "  NAME\tKIND\tHOST\tPORT\tNAMESPACE")
		for _, n := range r.Nodes {
			fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t%s\n", n.Name, n.Kind, n.Host, n.PortID, n.Namespace)
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return nil
}
