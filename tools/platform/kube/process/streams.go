package process

import (
	"io"
	"os"
	"sync"
	"syscall"
	"time"
)

// terminationSignal asks a container to end.
const terminationSignal = syscall.SIGTERM

// streams are the pipes of a command. They are our own, not exec.Cmd's, because those make waiting for the command wait for its
// input too.
type streams struct {
	in, out, err *os.File // the command's ends; in may be nil
	ours         []*os.File
	copies       sync.WaitGroup // of output
}

func newStreams(in io.Reader, out, errOut io.Writer) (*streams, error) {
	s := &streams{}
	for _, o := range []struct {
		w    io.Writer
		file **os.File
	}{{out, &s.out}, {errOut, &s.err}} {
		if o.w == nil {
			o.w = io.Discard
		}
		if o.file == &s.err && errOut == out && s.out != nil { // one pipe keeps the order, and one writer at a time
			s.err = s.out
			continue
		}
		read, write, err := os.Pipe()
		if err != nil {
			s.started()
			s.end()
			return nil, err
		}
		*o.file = write
		s.ours = append(s.ours, read)
		s.copies.Go(func() {
			_, _ = io.Copy(o.w, read)
			_, _ = io.Copy(io.Discard, read) // whoever listened has gone: the command must not block on its output
		})
	}
	if in != nil {
		read, write, err := os.Pipe()
		if err != nil {
			s.started()
			s.end()
			return nil, err
		}
		s.in = read
		s.ours = append(s.ours, write)
		go func() { // ends when in does, or when the pipe is closed and something more comes
			_, _ = io.Copy(write, in)
			write.Close()
		}()
	}
	return s, nil
}

// stdin avoids a nil *os.File in an interface.
func (s *streams) stdin() io.Reader {
	if s.in == nil {
		return nil
	}
	return s.in
}

// started closes the command's ends, which it has copies of.
func (s *streams) started() {
	for _, f := range []*os.File{s.in, s.out, s.err} {
		if f != nil {
			f.Close()
		}
	}
}

// end waits for the output that is still in the pipes, not for somebody who left the group and holds them.
func (s *streams) end() {
	for _, f := range s.ours {
		_ = f.SetReadDeadline(time.Now().Add(time.Second)) // only pipes that are read have one
	}
	s.copies.Wait()
	for _, f := range s.ours {
		f.Close()
	}
}
