// Command saas is a small application of its kind: companies sign up, each gets
// a database of its own and an address, takes orders there, and invoices are
// written in the background. Operators have figures and a status page.
//
//	go -C examples/saas run .                                         # SQLite, in files
//	go -C examples/saas run . -dsn postgres://admin:secret@db1/main   # PostgreSQL
//
// Then open http://localhost:8080. A tenant's address is one label below, such as
// http://acme.localhost:8080, which browsers find without a name server.
//
// A real one needs more: e-mail addresses that are confirmed, and limits on how
// often somebody may sign up or try a password. Where a proxy ends TLS, r.TLS is
// nil: the cookie's Secure and the redirects' https must come from elsewhere.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/gorm-tenancy/tenancy/tenancyslog"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, os.Stdout, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "saas:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, args []string) (err error) {
	flags := flag.NewFlagSet("saas", flag.ContinueOnError)
	addr := flags.String("addr", "127.0.0.1:8080", "listen on `host:port`")
	base := flags.String("base", "localhost", "`domain` of sign-up; tenants are one label below")
	dir := flags.String("dir", "saas-data", "`directory` of the SQLite files")
	dsn := flags.String("dsn", "", "`URL` of the main database on PostgreSQL, for a user who may create databases; without it SQLite is used")
	operator := flags.String("operator-password", "", "of the operators' pages (default a random one, which is printed)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	log := slog.New(tenancyslog.NewHandler(slog.NewTextHandler(os.Stderr, nil), nil))

	e, err := chooseEngine(ctx, *dir, *dsn)
	if err != nil {
		return err
	}
	cfg := config{base: strings.ToLower(*base), operator: *operator}
	said := "the one that was given"
	if cfg.operator == "" {
		cfg.operator = rand.Text()
		said = cfg.operator
	}
	a, err := open(ctx, log, e, cfg)
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		err = errors.Join(err, a.close(ctx))
	}()
	if err != nil {
		return err
	}
	handler, err := a.handler()
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		return err
	}
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	fmt.Fprintf(out, "sign up at   http://%s:%s\n", cfg.base, port)
	fmt.Fprintf(out, "operators at http://%s.%s:%s (any name, password: %s)\n", operators, cfg.base, port, said)
	return serve(ctx, listener, handler)
}

func chooseEngine(ctx context.Context, dir, dsn string) (engine, error) {
	if dsn != "" {
		return onPostgres(dsn)
	}
	path, err := filepath.Abs(dir)
	if err != nil {
		return engine{}, err
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return engine{}, err
	}
	return onSQLite(ctx, path)
}

// serve ends when ctx does, after the requests that are under way.
func serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 60 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	err := server.Shutdown(ctx)
	if ended := <-ended; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	return err
}
