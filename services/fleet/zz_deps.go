//go:build deps

// Package fleet: this file goes away once the adapters import these modules.
package fleet

import (
	_ "connectrpc.com/connect"
	_ "connectrpc.com/grpchealth"
	_ "edgehold.internal/libs/problem"
	_ "edgehold.internal/proto/edgehold/fleet/v1"
	_ "edgehold.internal/proto/edgehold/fleet/v1/fleetv1connect"
	_ "github.com/google/go-cmp/cmp"
	_ "github.com/prometheus/client_golang/prometheus"
	_ "github.com/spf13/cobra"
	_ "github.com/spf13/pflag"
	_ "go.uber.org/goleak"
	_ "golang.org/x/sync/errgroup"
	_ "google.golang.org/protobuf/proto"
	_ "k8s.io/api/core/v1"
	_ "k8s.io/apimachinery/pkg/runtime"
	_ "k8s.io/client-go/kubernetes"
	_ "k8s.io/client-go/tools/clientcmd"
	_ "pgregory.net/rapid"
	_ "sigs.k8s.io/controller-runtime"
	_ "sigs.k8s.io/controller-runtime/pkg/manager"
	_ "sigs.k8s.io/yaml"
)
