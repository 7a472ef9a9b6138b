package temporal

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	sdk "go.temporal.io/sdk/temporal"
)

// The search attributes, all keywords. Operations have fleet, state and key; the workflows of their PoPs have fleet, PoP,
// state and operation.
var (
	FleetAttribute     = sdk.NewSearchAttributeKeyKeyword("EdgeholdFleet")
	PopAttribute       = sdk.NewSearchAttributeKeyKeyword("EdgeholdPop")
	StateAttribute     = sdk.NewSearchAttributeKeyKeyword("EdgeholdState")
	OperationAttribute = sdk.NewSearchAttributeKeyKeyword("EdgeholdOperation")
	KeyAttribute       = sdk.NewSearchAttributeKeyKeyword("EdgeholdKey")
)

var attributes = []sdk.SearchAttributeKeyKeyword{FleetAttribute, PopAttribute, StateAttribute, OperationAttribute, KeyAttribute}

// ensureAttributes creates the search attributes that are missing and returns when they can be used. An error says what
// an operator has to create; operations run without them.
func ensureAttributes(ctx context.Context, c client.Client, namespace string) error {
	if usable(ctx, c, namespace) == nil {
		return nil
	}
	missing := make(map[string]enums.IndexedValueType, len(attributes))
	for _, a := range attributes {
		missing[a.GetName()] = enums.INDEXED_VALUE_TYPE_KEYWORD
	}
	have, err := c.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: namespace})
	if err == nil {
		for name := range have.GetCustomAttributes() {
			delete(missing, name)
		}
	}
	if len(missing) > 0 {
		_, err = c.OperatorService().AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{Namespace: namespace, SearchAttributes: missing})
		var exists *serviceerror.AlreadyExists
		if err != nil && !errors.As(err, &exists) {
			var names []string
			for _, a := range attributes {
				names = append(names, a.GetName())
			}
			return fmt.Errorf("create the keyword search attributes %s in namespace %s by hand: %w", strings.Join(names, ", "), namespace, err)
		}
	}
	// A new attribute is known to every part of the server after its caches were read again.
	for {
		err := usable(ctx, c, namespace)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// usable asks for something that needs them all.
func usable(ctx context.Context, c client.Client, namespace string) error {
	var terms []string
	for _, a := range attributes {
		terms = append(terms, a.GetName()+" = 'x'")
	}
	_, err := c.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{Namespace: namespace, Query: strings.Join(terms, " AND ")})
	return err
}
