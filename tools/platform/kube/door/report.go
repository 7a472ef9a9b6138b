package door

import (
	"cmp"
	"encoding/json"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"edgehold.internal/tools/platform/kube/address"
)

// Report is what GET /doors says of one door.
type Report struct {
	Namespace string `json:"namespace"`
	Service   string `json:"service"`
	// Address of the Service in the cluster, 10.B.s.t.
	Address string `json:"address"`
	Port    int    `json:"port"`
	// Listen is the address and port on this machine.
	Listen string `json:"listen"`
	// Endpoints that new connections go to.
	Endpoints int `json:"endpoints"`
	// Changed is when the endpoints were last changed: later connections go to the present ones only.
	Changed time.Time `json:"changed"`
	// Open connections, those being dialled included.
	Open int64 `json:"open"`
	// Refused connections that no colour got: there was no endpoint, or they were over the limit.
	Refused int64 `json:"refused"`
	// DialFailed counts connections that their endpoint refused, or that did not reach it.
	DialFailed int64 `json:"dial_failed"`
	// Colours by the colour of the endpoints' pods, "" for none: those of now, and all that ever were.
	Colours map[string]ColourReport `json:"colours"`
	// Closing is set when the Service no longer has this port and its last connections are waited for.
	Closing bool `json:"closing,omitempty"`
	// Problem says why the door does not listen.
	Problem string `json:"problem,omitempty"`
}

// ColourReport counts the connections of one colour.
type ColourReport struct {
	// Endpoints of the colour that new connections go to.
	Endpoints int   `json:"endpoints"`
	Open      int64 `json:"open"`
	// Accepted connections that were handed to the colour since the door opened.
	Accepted int64 `json:"accepted"`
	// LastAccepted is when the last one was; null for never.
	LastAccepted *time.Time `json:"last_accepted"`
	// DialFailed counts connections that endpoints of the colour refused, or that did not reach them.
	DialFailed int64 `json:"dial_failed"`
	// BytesIn and BytesOut are those to and from the endpoints.
	BytesIn  int64 `json:"bytes_in"`
	BytesOut int64 `json:"bytes_out"`
}

// Reports of all doors, sorted by namespace, Service, address and port.
func (k *Keeper) Reports() []Report {
	reports := []Report{}
	for _, d := range k.all() {
		reports = append(reports, d.report())
	}
	return reports
}

// all doors, sorted.
func (k *Keeper) all() []*door {
	k.mu.RLock()
	var doors []*door
	for _, byAddress := range k.doors {
		doors = slices.AppendSeq(doors, maps.Values(byAddress))
	}
	k.mu.RUnlock()
	slices.SortFunc(doors, func(a, b *door) int {
		return cmp.Or(cmp.Compare(a.service.Namespace, b.service.Namespace), cmp.Compare(a.service.Name, b.service.Name),
			a.address.Compare(b.address))
	})
	return doors
}

func (d *door) report() Report {
	now := d.table.Load()
	r := Report{
		Namespace: d.service.Namespace,
		Service:   d.service.Name,
		Address:   d.address.Addr().String(),
		Port:      int(d.address.Port()),
		Listen:    netip.AddrPortFrom(address.Loopback(d.address.Addr()), d.address.Port()).String(),
		Endpoints: len(now.endpoints),
		Changed:   now.changed.UTC(),
		Open:      d.open.Load(),
		Refused:   d.noEndpoint.Load() + d.overLimit.Load(),
		Colours:   map[string]ColourReport{},
		Closing:   d.retired.Load() != nil,
	}
	if problem := d.problem.Load(); problem != nil {
		r.Problem = *problem
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for colour, t := range d.tallies {
		c := ColourReport{
			Open: t.open.Load(), Accepted: t.accepted.Load(), DialFailed: t.dialFailed.Load(),
			BytesIn: t.in.Load(), BytesOut: t.out.Load(),
		}
		if ns := t.lastAccepted.Load(); ns != 0 {
			last := time.Unix(0, ns).UTC()
			c.LastAccepted = &last
		}
		for _, e := range now.endpoints {
			if e.tally == t {
				c.Endpoints++
			}
		}
		r.DialFailed += c.DialFailed
		r.Colours[colour] = c
	}
	return r
}

// ServeHTTP answers GET and HEAD with the Reports as JSON; ?namespace= and ?service= narrow them.
func (k *Keeper) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "doors are read only", http.StatusMethodNotAllowed)
		return
	}
	namespace, service := r.URL.Query().Get("namespace"), r.URL.Query().Get("service")
	reports := []Report{}
	for _, d := range k.all() {
		if (namespace == "" || namespace == d.service.Namespace) && (service == "" || service == d.service.Name) {
			reports = append(reports, d.report())
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(reports) // fails only when the client has gone
}

var (
	doorLabels   = []string{"namespace", "service", "port"}
	colourLabels = append(slices.Clone(doorLabels), "colour")

	openDesc       = desc("connections_open", "Connections open to endpoints of a colour.", colourLabels)
	acceptedDesc   = desc("connections_accepted_total", "Connections handed to endpoints of a colour.", colourLabels)
	dialFailedDesc = desc("dial_failed_total", "Connections whose endpoint could not be reached.", colourLabels)
	bytesDesc      = desc("bytes_total", "Bytes carried, by direction: in is to the endpoints.", append(slices.Clone(colourLabels), "direction"))
	refusedDesc    = desc("refused_total", "Connections refused, by reason.", append(slices.Clone(doorLabels), "reason"))
	endpointsDesc  = desc("endpoints", "Endpoints that new connections go to.", doorLabels)
	changedDesc    = desc("endpoints_changed_timestamp_seconds", "When the endpoints were last changed.", doorLabels)
	listeningDesc  = desc("listening", "1 when the door accepts connections.", doorLabels)
)

func desc(name, text string, labels []string) *prometheus.Desc {
	return prometheus.NewDesc("edgehold_door_"+name, text, labels, nil)
}

// Describe implements prometheus.Collector.
func (k *Keeper) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{openDesc, acceptedDesc, dialFailedDesc, bytesDesc, refusedDesc, endpointsDesc, changedDesc, listeningDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. There are as many series as doors times colours.
func (k *Keeper) Collect(ch chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, value int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), labels...)
	}
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	seen := map[[3]string]bool{}
	for _, d := range k.all() {
		r := d.report()
		id := [3]string{r.Namespace, r.Service, strconv.Itoa(r.Port)}
		// A Service that was made anew at another address has two doors for a while; the one that is closing is left out.
		if seen[id] || r.Closing {
			continue
		}
		seen[id] = true
		listening := 1.0
		if r.Problem != "" {
			listening = 0
		}
		gauge(listeningDesc, listening, id[:]...)
		gauge(endpointsDesc, float64(r.Endpoints), id[:]...)
		gauge(changedDesc, float64(r.Changed.UnixMilli())/1e3, id[:]...)
		counter(refusedDesc, d.noEndpoint.Load(), id[0], id[1], id[2], "no_endpoint")
		counter(refusedDesc, d.overLimit.Load(), id[0], id[1], id[2], "over_limit")
		for colour, c := range r.Colours {
			gauge(openDesc, float64(c.Open), id[0], id[1], id[2], colour)
			counter(acceptedDesc, c.Accepted, id[0], id[1], id[2], colour)
			counter(dialFailedDesc, c.DialFailed, id[0], id[1], id[2], colour)
			counter(bytesDesc, c.BytesIn, id[0], id[1], id[2], colour, "in")
			counter(bytesDesc, c.BytesOut, id[0], id[1], id[2], colour, "out")
		}
	}
}
