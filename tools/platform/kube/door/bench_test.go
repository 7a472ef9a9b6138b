package door

import (
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"
)

// BenchmarkDoor compares connections through a door with direct ones. cpu-ns/op is the whole process's: client, door, pod.
func BenchmarkDoor(b *testing.B) {
	for _, path := range []string{"direct", "door"} {
		b.Run(path, func(b *testing.B) {
			c := start(b, nil)
			c.pod("blue-1", func(conn *net.TCPConn) {
				_, _ = io.CopyBuffer(struct{ io.Writer }{conn}, struct{ io.Reader }{conn}, make([]byte, 64<<10))
			})
			c.create()
			c.serve("blue-1")
			to := &net.TCPAddr{IP: net.ParseIP(front5), Port: c.port}
			if path == "direct" {
				to.IP = net.ParseIP(podAddress("blue-1", "127"))
			}
			dial := func() *net.TCPConn {
				conn, err := net.DialTCP("tcp4", nil, to)
				if err != nil {
					b.Fatal(err)
				}
				return conn
			}
			b.Run("connect", func(b *testing.B) {
				measured(b, func() {
					request := make([]byte, 512)
					for range b.N {
						conn := dial()
						exchange(b, conn, request)
						reset(conn) // no ports in TIME_WAIT, of which there are too few for this
					}
				})
			})
			b.Run("request", func(b *testing.B) {
				const connections = 16
				var conns [connections]*net.TCPConn
				for i := range conns {
					conns[i] = dial()
					defer conns[i].Close()
				}
				measured(b, func() {
					var group sync.WaitGroup
					for _, conn := range conns {
						group.Go(func() {
							request := make([]byte, 1024)
							for range b.N/connections + 1 {
								exchange(b, conn, request)
							}
						})
					}
					group.Wait()
				})
			})
			b.Run("bulk", func(b *testing.B) {
				conn := dial()
				defer conn.Close()
				block := make([]byte, 256<<10)
				b.SetBytes(int64(len(block)))
				measured(b, func() {
					var group sync.WaitGroup
					group.Go(func() {
						for range b.N {
							_, _ = conn.Write(block)
						}
					})
					answer := make([]byte, len(block))
					for range b.N {
						if _, err := io.ReadFull(conn, answer); err != nil {
							b.Fatal(err)
						}
					}
					group.Wait()
				})
			})
		})
	}
}

func exchange(b *testing.B, conn net.Conn, message []byte) {
	if _, err := conn.Write(message); err != nil {
		b.Error(err)
	}
	if _, err := io.ReadFull(conn, message); err != nil {
		b.Error(err)
	}
}

func measured(b *testing.B, run func()) {
	before := processorTime()
	b.ResetTimer()
	run()
	b.StopTimer()
	b.ReportMetric(float64(processorTime()-before)/float64(b.N), "cpu-ns/op")
}

func processorTime() time.Duration {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
