package cli

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
)

func (b builder) dump() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "dump ID", Short: "write a tenant's database, as it is at one moment", Args: someArgs(1, 1),
		Long: "Writes a tenant's database as it is at one moment, in use or not, to stdout or\n" +
			"a file, in the format that restore reads.",
		RunE: b.do(func(r *run, args []string) error {
			if file != "" {
				return r.dumpFile(args[0], file)
			}
			if isTerminal(r.out) {
				return errors.New("a dump is no text for a terminal; name a file by --output, or redirect stdout")
			}
			w := bufio.NewWriterSize(r.out, 1<<16)
			if err := r.cat.Dump(r.ctx, args[0], w); err != nil {
				return r.cause(err)
			}
			return w.Flush()
		}),
	}
	cmd.Flags().StringVarP(&file, "output", "o", "", "the file, which gets mode 0600")
	return cmd
}

// dumpFile makes the file whole or not at all.
func (r *run) dumpFile(id, name string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	w := bufio.NewWriterSize(f, 1<<16)
	if err := r.cat.Dump(r.ctx, id, w); err != nil {
		return r.cause(err)
	}
	if err := errors.Join(w.Flush(), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return err
	}
	r.err.sayf("%s is in %s", id, name)
	return nil
}

func (b builder) restore() *cobra.Command {
	var o catalog.CreateOptions
	var replace, force bool
	cmd := &cobra.Command{
		Use: "restore ID [FILE]", Short: "make a tenant of a dump", Args: someArgs(1, 2),
		Long: "Makes a tenant of a dump that is in a file, or comes on stdin. With --replace the\n" +
			"tenant may exist: the dump is restored under another id first, and takes the\n" +
			"tenant's place when it is whole. The tenant that was there is removed then, with\n" +
			"a backup if the configuration says so.",
		RunE: b.do(func(r *run, args []string) error {
			from := r.in
			if len(args) == 2 && args[1] != "-" {
				f, err := os.Open(args[1])
				if err != nil {
					return err
				}
				defer f.Close() //nolint:errcheck // it was only read
				from = f
			}
			if isTerminal(from) {
				return errors.New("a dump is not typed; name its file, or redirect stdin")
			}
			if replace {
				return r.replace(args[0], from, o, force)
			}
			t, err := r.cat.Restore(r.ctx, args[0], from, o)
			if err != nil {
				return r.cause(err)
			}
			return r.printTenant(t)
		}),
	}
	birth(cmd, &o)
	cmd.Flags().BoolVar(&replace, "replace", false, "take the place of the tenant that has the id")
	forceFlag(cmd, &force)
	return cmd
}

// replace restores beside the tenant first: a dump that is no good leaves the
// tenant as it was.
func (r *run) replace(id string, dump io.Reader, o catalog.CreateOptions, force bool) error {
	old, err := r.cat.Get(r.ctx, id)
	switch {
	case errors.Is(err, tenancy.ErrTenantNotFound):
		return fmt.Errorf("there is no tenant %s to replace; restore without --replace", printable(id))
	case err != nil:
		return err
	}
	if err := r.confirm(force, fmt.Sprintf("restore %s: the dump takes the place of the tenant that is there, which is removed", id), id); err != nil {
		return err
	}
	if o.Labels == nil {
		o.Labels = old.Labels
	}
	if o.Server == "" {
		o.Server = old.Server
	}
	if o.MaxConns == 0 {
		o.MaxConns = old.MaxConns
	}
	beside := "restore-" + strings.ToLower(rand.Text()[:12])
	if _, err := r.cat.Restore(r.ctx, beside, dump, o); err != nil {
		if _, undo := r.cat.Remove(r.ctx, beside, catalog.RemoveOptions{NoBackup: true}); undo != nil && !errors.Is(undo, tenancy.ErrTenantNotFound) {
			err = fmt.Errorf("%w; what is left of it is tenant %s: remove it", err, beside)
		}
		return r.cause(err)
	}
	if _, err := r.cat.Remove(r.ctx, id, catalog.RemoveOptions{}); err != nil {
		return fmt.Errorf("the dump is restored as %s, but %s could not be removed: remove it, then rename %s to it: %w", beside, id, beside, err)
	}
	if err := r.cat.Rename(r.ctx, beside, id); err != nil {
		return fmt.Errorf("the dump is restored as %s, which could not be renamed to %s: do that: %w", beside, id, err)
	}
	return r.printNow(id)
}
