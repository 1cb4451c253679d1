package tenancypg

import (
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// proxy stands between a client and the server, and can fall silent without
// closing anything, as a network does.
type proxy struct {
	l        net.Listener
	mu       sync.Mutex
	open     chan struct{} // closed while data may pass
	conns    []net.Conn
	closed   bool
	all      sync.WaitGroup
	upstream atomic.Pointer[string]
	network  string
}

func newProxy(t testing.TB) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{l: l, open: make(chan struct{})}
	close(p.open)
	p.all.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

// redirect is an Engine.Configure that leads through the proxy.
func (p *proxy) redirect(cfg *pgx.ConnConfig) error {
	network, addr := pgconn.NetworkAddress(cfg.Host, cfg.Port)
	p.network = network
	p.upstream.Store(&addr)
	host, port, err := net.SplitHostPort(p.l.Addr().String())
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return err
	}
	cfg.Host, cfg.Port, cfg.TLSConfig, cfg.Fallbacks = host, uint16(n), nil, nil
	return nil
}

func (p *proxy) stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = make(chan struct{})
}

func (p *proxy) resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.open:
	default:
		close(p.open)
	}
}

func (p *proxy) gate() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open
}

func (p *proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		_ = c.Close()
		return false
	}
	p.conns = append(p.conns, c)
	return true
}

func (p *proxy) accept() {
	for {
		client, err := p.l.Accept()
		if err != nil {
			return
		}
		if !p.keep(client) {
			return
		}
		p.all.Go(func() {
			defer client.Close()
			<-p.gate()
			server, err := net.Dial(p.network, *p.upstream.Load())
			if err != nil || !p.keep(server) {
				return
			}
			defer server.Close()
			back := make(chan struct{})
			go func() {
				defer close(back)
				p.copy(client, server)
				_ = client.Close()
			}()
			p.copy(server, client)
			_ = server.Close()
			<-back
		})
	}
}

func (p *proxy) copy(dst io.Writer, src io.Reader) {
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		<-p.gate()
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (p *proxy) close() {
	p.resume()
	_ = p.l.Close()
	p.mu.Lock()
	p.closed = true
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.all.Wait()
}
