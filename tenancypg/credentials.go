package tenancypg

import (
	"context"
	"crypto/tls"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// beforeConnect is an Engine.BeforeConnect.
type beforeConnect func(context.Context, *pgx.ConnConfig) error

// credentialError is the error of a dial that had no credentials to dial with.
type credentialError struct {
	err    error
	caller bool // the dial's own ctx had ended
}

func (e *credentialError) Error() string { return "tenancypg: before connect: " + e.err.Error() }
func (e *credentialError) Unwrap() error { return e.err }

// login returns what pgx calls before each dial, with the copy of base that it
// is about to use (stdlib/sql.go, connector.Connect).
func (before beforeConnect) login(base *pgx.ConnConfig) func(context.Context, *pgx.ConnConfig) error {
	return func(ctx context.Context, cfg *pgx.ConnConfig) error {
		// pgx's copy is shallow: a function that wrote into RuntimeParams
		// or Fallbacks would change every other dial.
		changed := base.Copy()
		if err := before.call(ctx, changed); err != nil {
			return err
		}
		if err := samePlace(base, changed); err != nil {
			return &credentialError{err: err}
		}
		// Only these: what else could lead elsewhere, a DialFunc for one,
		// can't be compared. And a function that parses a whole DSN anew
		// does not undo Configure.
		cfg.User, cfg.Password = changed.User, changed.Password
		cfg.TLSConfig, cfg.Fallbacks = changed.TLSConfig, changed.Fallbacks
		cfg.SSLCertMode = changed.SSLCertMode
		cfg.OAuthTokenProvider = changed.OAuthTokenProvider
		return nil
	}
}

// call calls the application's function within the time that a connect has:
// the dials that database/sql makes for those who wait have no deadline.
func (before beforeConnect) call(ctx context.Context, cfg *pgx.ConnConfig) error {
	bounded := ctx
	if cfg.ConnectTimeout > 0 {
		var cancel context.CancelFunc
		bounded, cancel = context.WithTimeout(ctx, cfg.ConnectTimeout)
		defer cancel()
	}
	err := before(bounded, cfg)
	if err == nil {
		return nil
	}
	var parse *pgconn.ParseConfigError
	if errors.As(err, &parse) {
		err = parseError(parse) // it holds the whole DSN
	}
	return &credentialError{err: err, caller: ctx.Err() != nil}
}

// samePlace makes sure that cfg leads where base does. Its errors name fields
// and no values: a DSN in the wrong field is a password in the log.
func samePlace(base, cfg *pgx.ConnConfig) error {
	switch {
	case cfg.Database != base.Database:
		return errors.New("BeforeConnect changed the Database; it may only change credentials")
	case cfg.Host != base.Host, cfg.Port != base.Port:
		return errors.New("BeforeConnect changed the Host or Port; it may only change credentials")
	case len(cfg.Fallbacks) != len(base.Fallbacks):
		return errFallbacks
	}
	if err := sameTLS(base.TLSConfig, cfg.TLSConfig); err != nil {
		return err
	}
	for i, b := range base.Fallbacks {
		f := cfg.Fallbacks[i]
		if f == nil || f.Host != b.Host || f.Port != b.Port {
			return errFallbacks
		}
		if err := sameTLS(b.TLSConfig, f.TLSConfig); err != nil {
			return err
		}
	}
	return nil
}

var errFallbacks = errors.New("BeforeConnect changed the Fallbacks' hosts or ports; it may only change credentials")

// sameTLS lets certificates change, but neither the switch to plain text nor
// the name that the server is asked for.
func sameTLS(base, cfg *tls.Config) error {
	switch {
	case base == nil:
		return nil
	case cfg == nil:
		return errors.New("BeforeConnect took a TLSConfig away; it may only change credentials")
	case cfg.ServerName != base.ServerName:
		return errors.New("BeforeConnect changed a TLSConfig's ServerName; it may only change credentials")
	}
	return nil
}
