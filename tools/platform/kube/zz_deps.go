//go:build tools

// Package kube pins the packages of this module until all of it is in place.
package kube

import (
	_ "github.com/prometheus/client_golang/prometheus/promhttp"
	_ "github.com/prometheus/common/expfmt"
	_ "github.com/spf13/pflag"
	_ "github.com/virtual-kubelet/virtual-kubelet/node"
	_ "go.etcd.io/etcd/server/v3/embed"
	_ "go.uber.org/goleak"
	_ "github.com/google/go-cmp/cmp"
	_ "pgregory.net/rapid"
	_ "golang.org/x/sync/errgroup"
	_ "k8s.io/cri-streaming/pkg/streaming"
	_ "k8s.io/api/core/v1"
	_ "k8s.io/client-go/kubernetes"
	_ "k8s.io/component-base/logs/api/v1"
	_ "k8s.io/kubernetes/cmd/kube-apiserver/app"
	_ "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	_ "k8s.io/kubernetes/cmd/kube-scheduler/app"
	_ "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	_ "k8s.io/metrics/pkg/apis/custom_metrics"
	_ "sigs.k8s.io/custom-metrics-apiserver/pkg/apiserver"
	_ "sigs.k8s.io/custom-metrics-apiserver/pkg/cmd"
	_ "sigs.k8s.io/custom-metrics-apiserver/pkg/dynamicmapper"
	_ "sigs.k8s.io/custom-metrics-apiserver/pkg/provider"
	_ "sigs.k8s.io/custom-metrics-apiserver/pkg/provider/helpers"
	_ "k8s.io/client-go/kubernetes/fake"
	_ "k8s.io/metrics/pkg/client/custom_metrics"
)
