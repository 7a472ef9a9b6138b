package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	fleetv1 "edgehold.internal/proto/edgehold/fleet/v1"
)

func popCommand(a *app) *cobra.Command {
	cmd := noun("pop", "The points of presence: list")
	cmd.AddCommand(&cobra.Command{
		Use:   "list",
		Short: "List the PoPs of the registry and whether their Kubernetes API answers",
		Args:  none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			service, _, err := a.fleets()
			if err != nil {
				return err
			}
			list, err := service.ListPops(cmd.Context(), &fleetv1.ListPopsRequest{})
			if err != nil {
				return err
			}
			if a.output == "json" {
				return printJSON(a.out, list)
			}
			var rows [][]string
			for _, p := range list.GetPops() {
				state := "ok"
				if p.GetProblem() != nil {
					state = p.GetProblem().GetMessage()
				}
				rows = append(rows, []string{p.GetName(), p.GetRegion(), fmt.Sprintf("%.2f,%.2f", p.GetLatitude(), p.GetLongitude()), p.GetContext(), p.GetNamespace(), state})
			}
			table(a.out, "POP REGION COORDINATES CONTEXT NAMESPACE API", rows)
			return nil
		},
	})
	return cmd
}
