package stage

import (
	"os/exec"
	"runtime"
	"sync"
)

var spawner struct {
	once sync.Once
	jobs chan func()
}

// spawn starts the command from one OS thread that lives as long as this process: Linux delivers Pdeathsig when the
// thread that forked ends, and Go ends idle threads.
func spawn(cmd *exec.Cmd) error {
	spawner.once.Do(func() {
		spawner.jobs = make(chan func())
		go func() {
			runtime.LockOSThread()
			for job := range spawner.jobs {
				job()
			}
		}()
	})
	err := make(chan error, 1)
	spawner.jobs <- func() { err <- cmd.Start() }
	return <-err
}
