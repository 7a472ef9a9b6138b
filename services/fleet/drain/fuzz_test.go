package drain

import "testing"

// A pod's answer is input from outside: whatever it is, reading it ends, and a count is never negative.
func fuzz(f *testing.F, parse func([]byte) (Connections, error), seeds ...string) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		c, err := parse(body)
		if err == nil && (c.Open < 0 || c.Accepted < 0) {
			t.Errorf("%q was read as %+v", body, c)
		}
	})
}

func FuzzHook(f *testing.F) {
	fuzz(f, parseHook, `{"open":3,"accepted":120,"last_accepted":"2026-01-02T15:04:05.999Z","draining":false}`, `{"open":-1}`, `null`, ``)
}

func FuzzEnvoy(f *testing.F) {
	fuzz(f, parseEnvoy, `{"stats":[{"name":"server.state","value":0},{"name":"listener.0.0.0.0_80.downstream_cx_active","value":4}]}`, `{"stats":[{"name":"server.state","value":1e300}]}`, `[]`)
}

func FuzzNginx(f *testing.F) {
	fuzz(f, parseNginx, "Active connections: 2 \nserver accepts handled requests\n 7 7 9 \nReading: 0 Writing: 1 Waiting: 1 \n", "Active connections: 9999999999999999999\na\n1 1 1", "")
}

func FuzzHAProxy(f *testing.F) {
	fuzz(f, func(b []byte) (Connections, error) { return parseHAProxy(string(b)) },
		"proc.edgehold_draining: type=bool value=<0>\n\n# pxname,svname,scur,stot\nedge,FRONTEND,3,9\n", "Variable not found\n\n# pxname,\n", "# pxname,svname\n\"")
}

func FuzzSessions(f *testing.F) {
	f.Add("0x55de2816bf60: proto=tcpv4 src=127.0.0.1:34456 fe=edge be=edge srv=<none> ts=00\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, id := range parseSessions(text) {
			for _, c := range id[2:] {
				if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
					t.Errorf("%q would go into a command", id)
				}
			}
		}
	})
}
