package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"edgehold.internal/tools/platform/kube/address"
	"edgehold.internal/tools/platform/kube/process"
)

// writers bounds the statuses that are written at the same time.
const writers = 32

// keeper makes the processes of this node be those of the pods that the API has assigned to it, and the statuses in the API be
// those of the processes.
//
// It is what virtual-kubelet's PodController is for. That one is not used, because it leaves a pod in the API for its whole grace
// period even when its processes ended at once, writes labels and finalizers from an old copy with each status, and puts every
// environment in an order of its own.
type keeper struct {
	client    kubernetes.Interface
	host      *process.Host
	pool      *address.Pool
	log       *slog.Logger
	stopGrace time.Duration
	slots     chan struct{}

	ctx     context.Context // of writing; ends when the node stops
	workers sync.WaitGroup

	mu       sync.Mutex
	stopping bool
	live     map[types.UID]*worker
}

// worker is one pod from the first time it is seen until it is gone from the API and from this machine.
type worker struct {
	pod     *process.Pod
	changed chan struct{} // holds one token when there is something to write
	gone    chan struct{} // closed when the API does not have the pod any more

	mu   sync.Mutex
	seen *corev1.Pod // newest in the API, as far as this node knows
}

func newKeeper(ctx context.Context, client kubernetes.Interface, host *process.Host, pool *address.Pool, stopGrace time.Duration, log *slog.Logger) *keeper {
	return &keeper{
		client: client, host: host, pool: pool, log: log, stopGrace: stopGrace, ctx: ctx,
		slots: make(chan struct{}, writers), live: map[types.UID]*worker{},
	}
}

// begin takes up the pods that were assigned before this process started. The informer must have synced.
func (k *keeper) begin(informer cache.SharedIndexInformer) error {
	known := map[string]bool{}
	for _, obj := range informer.GetStore().List() {
		pod := obj.(*corev1.Pod)
		known[string(pod.UID)] = true
		// Before any new pod can be given the same one.
		if addr, err := netip.ParseAddr(pod.Status.PodIP); err == nil && !terminal(pod) {
			k.pool.Reserve(addr)
		}
	}
	if err := k.host.Sweep(func(uid string) bool { return known[uid] }); err != nil {
		return fmt.Errorf("remove the files of pods that are gone: %w", err)
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { k.see(obj.(*corev1.Pod), true) },
		UpdateFunc: func(_, obj any) { k.see(obj.(*corev1.Pod), false) },
		DeleteFunc: func(obj any) {
			if tombstone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = tombstone.Obj
			}
			if pod, ok := obj.(*corev1.Pod); ok {
				k.forget(pod)
			}
		},
	})
	return err
}

func terminal(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// see acts on what the API says of a pod. It does not block: it runs in the informer's goroutine.
func (k *keeper) see(pod *corev1.Pod, first bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stopping {
		return
	}
	if w, ok := k.live[pod.UID]; ok {
		w.update(pod)
		w.pod.Update(pod)
		if pod.DeletionTimestamp != nil {
			w.pod.Stop(deletionGrace(pod))
		}
		return
	}
	switch {
	case pod.DeletionTimestamp != nil: // its processes are gone already
		k.workers.Go(func() { k.delete(pod, nil) })
	case !terminal(pod):
		k.start(pod, first)
	}
}

func deletionGrace(pod *corev1.Pod) time.Duration {
	if s := pod.DeletionGracePeriodSeconds; s != nil {
		return time.Duration(*s) * time.Second
	}
	return specGrace(pod)
}

func specGrace(pod *corev1.Pod) time.Duration {
	if s := pod.Spec.TerminationGracePeriodSeconds; s != nil {
		return time.Duration(*s) * time.Second
	}
	return 30 * time.Second
}

func (k *keeper) start(pod *corev1.Pod, first bool) {
	// A pod that has an address keeps it: begin reserved it.
	ip, err := netip.ParseAddr(pod.Status.PodIP)
	if err != nil || !first {
		var ok bool
		if ip, ok = k.pool.Take(); !ok {
			// Cannot happen while --pods is below the size of the pool: the scheduler counts.
			k.log.Error("no address is left for a pod", "namespace", pod.Namespace, "pod", pod.Name)
			return
		}
	}
	w := &worker{changed: make(chan struct{}, 1), gone: make(chan struct{}), seen: pod}
	w.pod = k.host.Start(pod, ip, w.dirty)
	k.live[pod.UID] = w
	w.dirty()
	k.workers.Go(func() { k.follow(w, pod.UID) })
}

// forget ends a pod that the API does not have any more.
func (k *keeper) forget(pod *corev1.Pod) {
	k.mu.Lock()
	defer k.mu.Unlock()
	w, ok := k.live[pod.UID]
	if !ok { // it had ended before this process started
		if err := k.host.Remove(string(pod.UID)); err != nil {
			k.log.Warn("files of a pod stay behind", "uid", pod.UID, "error", err)
		}
		return
	}
	select {
	case <-w.gone:
	default:
		close(w.gone)
	}
	w.pod.Stop(specGrace(pod))
}

// follow writes what a pod's status is until the pod is gone.
func (k *keeper) follow(w *worker, uid types.UID) {
	done := w.pod.Done()
	for {
		select {
		case <-w.changed:
		case <-done:
			done = nil // written once more below, and again when the pod is deleted
		case <-w.gone:
			<-w.pod.Done() // bounded by its grace period
			k.drop(w, uid)
			return
		case <-k.ctx.Done():
			<-w.pod.Done()
			return
		}
		k.write(w)
		if done == nil {
			if pod := w.latest(); pod.DeletionTimestamp != nil {
				k.delete(pod, w.gone)
			}
		}
	}
}

// drop removes every trace of a pod; its address may be given to another one now.
func (k *keeper) drop(w *worker, uid types.UID) {
	if err := w.pod.Remove(); err != nil {
		k.log.Warn("files of a pod stay behind", "uid", uid, "error", err)
	}
	k.mu.Lock()
	delete(k.live, uid)
	k.mu.Unlock()
	k.pool.Release(w.pod.IP())
}

func (w *worker) dirty() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

func (w *worker) latest() *corev1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen
}

// update takes what is newer: answers to writes come in before the watch tells of them.
func (w *worker) update(pod *corev1.Pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if order, err := resourceversion.CompareResourceVersion(pod.ResourceVersion, w.seen.ResourceVersion); err == nil && order < 0 {
		return
	}
	w.seen = pod
}

// The first and the longest pause between attempts to write to the API.
const (
	firstWriteRetry = 100 * time.Millisecond
	lastWriteRetry  = 5 * time.Second
)

// write brings the status in the API up to date, and does not give up while the pod and the node live.
func (k *keeper) write(w *worker) {
	k.retry(w.gone, func() error {
		base := w.latest()
		// A fresh status each time: it may have changed while the API was away.
		patch, err := statusPatch(base, w.pod.Status(base.Status))
		if err != nil || patch == nil {
			return err
		}
		pod, err := k.client.CoreV1().Pods(base.Namespace).Patch(k.ctx, base.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
		if err != nil {
			return fmt.Errorf("write the status of pod %s/%s: %w", base.Namespace, base.Name, err)
		}
		w.update(pod)
		return nil
	})
}

// statusPatch is nil when nothing is to be changed. It changes only what is different, and only of the very pod, not of one that took its name.
func statusPatch(base *corev1.Pod, status corev1.PodStatus) ([]byte, error) {
	before, err := json.Marshal(corev1.Pod{Status: base.Status})
	if err != nil {
		return nil, err
	}
	after, err := json.Marshal(corev1.Pod{Status: status})
	if err != nil {
		return nil, err
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(before, after, corev1.Pod{})
	if err != nil || string(patch) == "{}" {
		return nil, err
	}
	var fields map[string]any
	if err := json.Unmarshal(patch, &fields); err != nil {
		return nil, err
	}
	fields["metadata"] = map[string]any{"uid": base.UID}
	return json.Marshal(fields)
}

// delete removes a pod from the API, because nothing of it is left here.
func (k *keeper) delete(pod *corev1.Pod, gone <-chan struct{}) {
	opts := metav1.NewDeleteOptions(0)
	opts.Preconditions = metav1.NewUIDPreconditions(string(pod.UID))
	k.retry(gone, func() error { return k.client.CoreV1().Pods(pod.Namespace).Delete(k.ctx, pod.Name, *opts) })
}

// retry does something in the API until it works, the pod is gone, the node stops, or the API says that it never will.
func (k *keeper) retry(gone <-chan struct{}, do func() error) {
	for pause := firstWriteRetry; ; pause = min(2*pause, lastWriteRetry) {
		select {
		case k.slots <- struct{}{}:
		case <-gone:
			return
		case <-k.ctx.Done():
			return
		}
		err := do()
		<-k.slots
		if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) { // gone, or another pod has its name
			return
		}
		if errors.Is(err, context.Canceled) {
			return
		}
		if apierrors.IsInvalid(err) || apierrors.IsForbidden(err) {
			k.log.Error("the API refuses what this node says", "error", err)
			return
		}
		k.log.Warn("will be tried again", "error", err, "in", pause)
		select {
		case <-time.After(pause):
		case <-gone:
			return
		case <-k.ctx.Done():
			return
		}
	}
}

// stop ends all pods and waits for them. What the API says of them stays, so that they are started again in place.
func (k *keeper) stop() {
	k.mu.Lock()
	k.stopping = true
	for _, w := range k.live {
		w.pod.Stop(min(k.stopGrace, specGrace(w.latest())))
	}
	k.mu.Unlock()
	k.workers.Wait()
}

// find returns a pod that this node runs, or nil.
func (k *keeper) find(namespace, name string) *process.Pod {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, w := range k.live {
		if pod := w.latest(); pod.Namespace == namespace && pod.Name == name {
			select {
			case <-w.gone: // another one may have its name
			default:
				return w.pod
			}
		}
	}
	return nil
}

// pods are those that this node has, as the API knows them.
func (k *keeper) pods() []corev1.Pod {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := make([]corev1.Pod, 0, len(k.live))
	for _, w := range k.live {
		out = append(out, *w.latest())
	}
	return out
}
