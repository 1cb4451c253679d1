package tenancy_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
)

const checkpointHeader = "tenancy checkpoint 1\n"

func openCheckpoint(t testing.TB, path string) *tenancy.FileCheckpoint {
	t.Helper()
	c, err := tenancy.OpenCheckpoint(path)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// A sweep that dies goes on where it ended, as a process that starts again
// would: with the file alone.
func TestEachGoesOnAfterAPanic(t *testing.T) {
	all := numbered("a", 20)
	for _, parallel := range []int{1, 4} {
		t.Run(fmt.Sprint(parallel), func(t *testing.T) {
			db, plugin := sweepLab(t, tenancy.Limits{})
			path := filepath.Join(t.TempDir(), "sweep")
			var mu sync.Mutex
			turns := map[string]int{}
			sweep := func(fail func(id string) error) (last tenancy.EachProgress, err error) {
				c := openCheckpoint(t, path)
				err = tenancy.Each(t.Context(), db, ids(all...), tenancy.EachOptions{
					Parallel: parallel, PerServer: parallel, Checkpoint: c,
					Progress: func(p tenancy.EachProgress) { last = p },
				}, func(_ context.Context, id string, db *gorm.DB) error {
					mu.Lock()
					turns[id]++
					mu.Unlock()
					if err := db.Exec("x").Error; err != nil {
						return err
					}
					return fail(id)
				})
				return last, err
			}
			require.Panics(t, func() {
				_, _ = sweep(func(id string) error {
					if id == "a-7" {
						panic("killed")
					}
					return nil
				})
			})
			require.Less(t, len(turns), 15)
			once := len(turns) - 1 // had their turn, and were marked

			opened := plugin.Stats().Opened
			last, err := sweep(func(id string) error {
				if id == "a-11" {
					return errBoom
				}
				return nil
			})
			var each *tenancy.EachError
			require.ErrorAs(t, err, &each)
			require.Equal(t, once, each.Skipped)
			require.Len(t, each.Done, 20-once-1)
			require.ErrorContains(t, err, fmt.Sprintf("%d had their turn before", once))
			require.Equal(t, []int{20 - once - 1, 1}, []int{last.Done, last.Failed})
			require.Equal(t, opened+uint64(20-once), plugin.Stats().Opened, "who is skipped is not opened")

			last, err = sweep(func(string) error { return nil })
			require.NoError(t, err)
			require.Equal(t, []string{"a-11"}, []string{last.Tenant})
			require.Equal(t, 1, last.Done)
			for _, id := range all {
				want := 1
				if id == "a-7" || id == "a-11" {
					want = 2
				}
				require.Equal(t, want, turns[id], id)
			}
			last, err = sweep(func(string) error { return errBoom })
			require.NoError(t, err)
			require.Zero(t, last.Done, "nobody is left")
		})
	}
}

// brokenCheckpoint fails for one tenant.
type brokenCheckpoint struct {
	done, mark string
	marked     chan context.Context
}

func (c brokenCheckpoint) Done(_ context.Context, id string) (bool, error) {
	if id == c.done {
		return true, errBoom
	}
	return false, nil
}

func (c brokenCheckpoint) Mark(ctx context.Context, id string) error {
	if id == c.mark {
		return errBoom
	}
	if c.marked != nil {
		c.marked <- ctx
		return ctx.Err()
	}
	return nil
}

func TestEachWithACheckpointThatFails(t *testing.T) {
	nothing := func(context.Context, string, *gorm.DB) error { return nil }
	for _, parallel := range []int{1, 4} {
		db, _ := sweepLab(t, tenancy.Limits{})
		sweep := func(c tenancy.Checkpoint) *tenancy.EachError {
			var each *tenancy.EachError
			err := tenancy.Each(t.Context(), db, ids(numbered("a", 50)...), tenancy.EachOptions{Parallel: parallel, Checkpoint: c}, nothing)
			require.ErrorAs(t, err, &each)
			require.ErrorIs(t, err, errBoom)
			return each
		}
		each := sweep(brokenCheckpoint{done: "a-3"})
		require.ErrorIs(t, each.Cause, errBoom, "it is not known who had a turn: the sweep ends")
		require.Empty(t, each.Failed)
		require.Zero(t, each.Skipped)
		require.Less(t, len(each.Done), 20)
		require.NotContains(t, each.Done, "a-3")

		each = sweep(brokenCheckpoint{mark: "a-3"})
		require.NoError(t, each.Cause)
		require.Len(t, each.Done, 49)
		require.Equal(t, "a-3", each.Failed[0].Tenant)
		require.ErrorContains(t, each, "has its turn again")
	}
}

// What succeeded is marked though the sweep was cancelled meanwhile. An id that
// is not valid is never asked for.
func TestEachMarksAfterCancel(t *testing.T) {
	db, _ := sweepLab(t, tenancy.Limits{})
	ctx, cancel := context.WithCancel(t.Context())
	marked := make(chan context.Context, 1)
	c := brokenCheckpoint{done: "x/y", marked: marked}
	err := tenancy.Each(ctx, db, ids("x/y", "a-1", "a-2"), tenancy.EachOptions{Checkpoint: c},
		func(context.Context, string, *gorm.DB) error { cancel(); return nil })
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, err, tenancy.ErrInvalidTenant)
	var each *tenancy.EachError
	require.ErrorAs(t, err, &each)
	require.Equal(t, []string{"a-1"}, each.Done)
	_, bounded := (<-marked).Deadline()
	require.True(t, bounded)
}

func TestFileCheckpointReadsWhatACrashLeft(t *testing.T) {
	long := strings.Repeat("x", 5000)
	for name, tc := range map[string]struct {
		file string
		done []string
	}{
		"new":                 {file: ""},
		"header cut off":      {file: checkpointHeader[:7]},
		"header only":         {file: checkpointHeader},
		"marks":               {file: checkpointHeader + "\"a\"\n\"b-1\"\n", done: []string{"a", "b-1"}},
		"last line cut off":   {file: checkpointHeader + "\"a\"\n\"b-1", done: []string{"a"}},
		"its end alone":       {file: checkpointHeader + "\"a\"\nb-1\"\n", done: []string{"a"}},
		"line break missing":  {file: checkpointHeader + "\"a\"\n\"b-1\"", done: []string{"a", "b-1"}},
		"cut off and gone on": {file: checkpointHeader + "\"b-\n\"a\"\n", done: []string{"a"}},
		"two in a line":       {file: checkpointHeader + "\"b\"a\"\n\"c\"\n", done: []string{"c"}},
		"no ids":              {file: checkpointHeader + "\"x/y\"\n\n\"\"\n\"\n\x00\x00\x00\"a\"\n", done: nil},
		"too long":            {file: checkpointHeader + long + "\n\"a\"\n", done: []string{"a"}},
		"too long and ends":   {file: checkpointHeader + strings.Repeat("x", 4096) + "\"b\"\n\"a\"\n", done: []string{"a"}},
		"too long, cut off":   {file: checkpointHeader + strings.Repeat("x", 4096-len(checkpointHeader)), done: nil},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "c")
			require.NoError(t, os.WriteFile(path, []byte(tc.file), 0o600))
			c := openCheckpoint(t, path)
			check := func(c *tenancy.FileCheckpoint, want []string) {
				t.Helper()
				for _, id := range []string{"a", "b", "b-", "b-1", "c", "next"} {
					done, err := c.Done(t.Context(), id)
					require.NoError(t, err)
					require.Equal(t, slices.Contains(want, id), done, id)
				}
			}
			check(c, tc.done)
			require.NoError(t, c.Mark(t.Context(), "next"))
			check(c, append(tc.done, "next"))
			check(openCheckpoint(t, path), append(tc.done, "next"))
		})
	}
}

func TestFileCheckpointRefusesOtherFiles(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"other":   "a\nb\nc\n a file that is not ours and long",
		"short":   "a",
		"version": "tenancy checkpoint 2\n\"a\"\n",
	} {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		_, err := tenancy.OpenCheckpoint(path)
		require.ErrorContains(t, err, "not a checkpoint's file")
		require.ErrorContains(t, err, path)
		left, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, content, string(left))
	}
	_, err := tenancy.OpenCheckpoint(dir)
	require.ErrorContains(t, err, "regular file")
	_, err = tenancy.OpenCheckpoint(filepath.Join(dir, "no", "such"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestFileCheckpointClosed(t *testing.T) {
	c := openCheckpoint(t, filepath.Join(t.TempDir(), "c"))
	require.ErrorIs(t, c.Mark(t.Context(), "x\n\"a\""), tenancy.ErrInvalidTenant)
	require.NoError(t, c.Mark(t.Context(), "a"))
	require.NoError(t, c.Close())
	require.NoError(t, c.Close())
	require.ErrorIs(t, c.Mark(t.Context(), "b"), os.ErrClosed)
	done, err := c.Done(t.Context(), "a")
	require.NoError(t, err)
	require.True(t, done)
}

// Turns side by side, in two processes that share the file: no mark is lost.
func TestFileCheckpointAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c")
	var turns sync.WaitGroup
	for i := range 4 {
		c := openCheckpoint(t, path)
		if i%2 == 1 {
			c = openCheckpoint(t, path)
		}
		for _, id := range numbered(fmt.Sprint(i), 25) {
			turns.Go(func() {
				_, _ = c.Done(context.Background(), id)
				if err := c.Mark(context.Background(), id); err != nil {
					t.Error(err)
				}
			})
		}
	}
	turns.Wait()
	c := openCheckpoint(t, path)
	for i := range 4 {
		for _, id := range numbered(fmt.Sprint(i), 25) {
			done, _ := c.Done(t.Context(), id)
			require.True(t, done, id)
		}
	}
}
