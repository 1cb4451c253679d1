package enginetest

import (
	"io"
	"net"
	"sync"
	"time"
)

// listener is a server that accepts and never says a word.
type listener struct {
	s     *suite
	l     net.Listener
	addr  string
	all   sync.WaitGroup
	mu    sync.Mutex
	conns []net.Conn
	dials chan struct{} // one for each accept
	gone  chan struct{} // one for each that the client closed
	hang  bool          // closes at once
}

func (s *suite) listen() *listener { return s.listening(false) }

// listening closes what it accepts if hangUp is true.
func (s *suite) listening(hangUp bool) *listener {
	s.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	s.must(err)
	// Nobody dials as often as that.
	l := &listener{s: s, l: tcp, addr: tcp.Addr().String(), hang: hangUp, dials: make(chan struct{}, 1000), gone: make(chan struct{}, 1000)}
	l.all.Go(l.accept)
	s.Cleanup(l.close)
	return l
}

func (l *listener) accept() {
	for {
		c, err := l.l.Accept()
		if err != nil {
			return
		}
		l.mu.Lock()
		l.conns = append(l.conns, c)
		l.mu.Unlock()
		l.dials <- struct{}{}
		if l.hang {
			_ = c.Close()
			continue
		}
		l.all.Go(func() {
			_, _ = io.Copy(io.Discard, c)
			l.gone <- struct{}{}
		})
	}
}

func (l *listener) accepted() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns)
}

// mark dials, and returns when that was accepted: so was all that was dialled
// before.
func (l *listener) mark() {
	l.s.Helper()
	c, err := net.Dial("tcp", l.addr)
	l.s.must(err)
	defer c.Close() //nolint:errcheck // nothing was sent
	for {
		l.s.happens("a dial is accepted", l.dials)
		l.mu.Lock()
		last := l.conns[len(l.conns)-1].RemoteAddr().String()
		l.mu.Unlock()
		if last == c.LocalAddr().String() {
			return
		}
	}
}

func (l *listener) close() {
	_ = l.l.Close()
	l.mu.Lock()
	for _, c := range l.conns {
		_ = c.Close()
	}
	l.mu.Unlock()
	l.all.Wait()
}

// proxy stands between an engine and the server. It sees when a connection is
// really closed, and can fall silent as a network does.
type proxy struct {
	target string
	l      net.Listener
	all    sync.WaitGroup

	mu     sync.Mutex
	change chan struct{} // closed at the next change
	conns  []net.Conn    // of both sides
	open   int           // that the client has not closed
	sent   int           // pieces of data from the client
	silent bool
	ended  bool
}

func (s *suite) proxy() *proxy {
	s.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	s.must(err)
	p := &proxy{target: s.Address, l: l, change: make(chan struct{})}
	p.all.Go(p.accept)
	s.Cleanup(p.close)
	return p
}

func (p *proxy) addr() string { return p.l.Addr().String() }

// note changes the proxy's state under its lock.
func (p *proxy) note(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	close(p.change)
	p.change = make(chan struct{})
}

// await waits for a state, for as long as limit, and reports whether it came.
func (p *proxy) await(limit time.Duration, is func() bool) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		p.mu.Lock()
		ok, change := is(), p.change
		p.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-change:
		case <-timer.C:
			return false
		}
	}
}

// silence stops all data, and lets it pass again.
func (p *proxy) silence(on bool) { p.note(func() { p.silent = on }) }

// passes waits until data may pass.
func (p *proxy) passes() {
	for !p.await(time.Hour, func() bool { return !p.silent || p.ended }) {
	}
}

func (p *proxy) keep(c net.Conn) bool {
	kept := false
	p.note(func() {
		if kept = !p.ended; kept {
			p.conns = append(p.conns, c)
		}
	})
	if !kept {
		_ = c.Close()
	}
	return kept
}

func (p *proxy) accept() {
	for {
		client, err := p.l.Accept()
		if err != nil {
			return
		}
		if p.keep(client) {
			p.note(func() { p.open++ })
			p.all.Go(func() { p.serve(client) })
		}
	}
}

func (p *proxy) serve(client net.Conn) {
	defer client.Close() //nolint:errcheck // it ends
	data := make(chan []byte, 1000)
	// Reading goes on in silence: that the client closed has to be seen.
	p.all.Go(func() {
		defer close(data)
		for {
			b := make([]byte, 4096)
			n, err := client.Read(b)
			if n > 0 {
				data <- b[:n]
				p.note(func() { p.sent++ })
			}
			if err != nil {
				p.note(func() { p.open-- })
				return
			}
		}
	})
	p.passes()
	server, err := net.Dial("tcp", p.target)
	if err != nil || !p.keep(server) {
		return
	}
	defer server.Close() //nolint:errcheck // it ends
	p.all.Go(func() {
		defer client.Close() //nolint:errcheck // the server has ended it
		b := make([]byte, 4096)
		for {
			n, err := server.Read(b)
			p.passes()
			if n > 0 {
				if _, err := client.Write(b[:n]); err != nil {
					return
				}
			}
			if err != nil {
				return
			}
		}
	})
	for b := range data {
		p.passes()
		if _, err := server.Write(b); err != nil {
			return
		}
	}
	p.passes()
}

func (p *proxy) close() {
	_ = p.l.Close()
	p.note(func() {
		p.ended = true
		for _, c := range p.conns {
			_ = c.Close()
		}
	})
	p.all.Wait()
}
