package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/server/v3/embed"
)

// startEtcd serves etcd on a unix socket in dir, readable by this user only, and returns when it answers.
func startEtcd(ctx context.Context, dir string, fsync bool) (*embed.Etcd, string, error) {
	cfg := embed.NewConfig()
	cfg.Dir = filepath.Join(dir, "etcd")
	cfg.LogLevel = "error"
	cfg.UnsafeNoFsync = !fsync
	cfg.QuotaBackendBytes = 2 << 30
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = embed.CompactorModePeriodic, "10m" // the apiserver compacts too; this bounds the file if it cannot
	client, err := socket(dir, "etcd.sock")
	if err != nil {
		return nil, "", err
	}
	peer, err := socket(dir, "etcd-peer.sock")
	if err != nil {
		return nil, "", err
	}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	server, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, "", fmt.Errorf("etcd in %s: %w", cfg.Dir, err)
	}
	select {
	case <-server.Server.ReadyNotify():
		return server, client.String(), nil
	case err := <-server.Err():
		server.Close()
		return nil, "", fmt.Errorf("etcd in %s: %w", cfg.Dir, err)
	case <-ctx.Done():
		server.Close()
		return nil, "", ctx.Err()
	}
}

// socket is the address of a unix socket in dir. One that a killed process left is removed; lock() made sure that nobody serves it.
func socket(dir, name string) (url.URL, error) {
	path := filepath.Join(dir, name)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return url.URL{}, err
	}
	return url.URL{Scheme: "unix", Host: "", Path: path}, nil
}
