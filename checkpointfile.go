package tenancy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/gorm-tenancy/tenancy/tenant"
)

// checkpointHeader is the first line of a checkpoint's file.
const checkpointHeader = "tenancy checkpoint 1\n"

// FileCheckpoint is a [Checkpoint] in a file. It is for one sweep, which may be
// interrupted and begun again: remove the file when the sweep is to start from
// the beginning.
//
// The file has one line for each tenant, its id in quotes, and grows only. Each
// Mark is on the disk (fsync) when it returns. A last line that a crash cut off
// is no mark. Two processes with one file lose nothing, but don't hear of each
// other's marks until they open it again, so turns come twice. Its methods may
// be called from any goroutine.
type FileCheckpoint struct {
	mu   sync.RWMutex // guards done
	done map[string]struct{}

	// Taken before mu, so that Done does not wait for the disk. Guards the rest.
	writing sync.Mutex
	file    *os.File // nil when closed
	torn    bool     // the file may not end with a whole line
}

// OpenCheckpoint opens the file, or makes it. A file that is no checkpoint's is
// an error, and left as it is.
func OpenCheckpoint(path string) (_ *FileCheckpoint, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("tenancy: checkpoint %s: %w", path, err)
		}
	}()
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file; give it a file of its own")
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	c := &FileCheckpoint{done: make(map[string]struct{}), file: file}
	if err := c.read(); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	syncDir(filepath.Dir(path))
	return c, nil
}

// syncDir keeps a new file's name over a crash, where directories can be synced.
// Without it the sweep starts over, no worse.
func syncDir(path string) {
	if dir, err := os.Open(path); err == nil {
		_ = dir.Sync()
		_ = dir.Close()
	}
}

// read reads the marks, and begins a new file.
func (c *FileCheckpoint) read() error {
	r := bufio.NewReader(c.file)
	head, err := r.Peek(len(checkpointHeader))
	if err != nil && err != io.EOF {
		return err
	}
	if string(head) != checkpointHeader {
		if err == nil || !bytes.HasPrefix([]byte(checkpointHeader), head) {
			return errors.New("it is not a checkpoint's file, or one of another version; give the sweep a file of its own")
		}
		return c.begin(len(head) > 0) // it is new, or a crash came at once
	}
	for {
		line, err := r.ReadSlice('\n')
		rest := c.torn // of a line that was too long
		c.torn = err != nil && (rest || len(line) > 0)
		if err != nil && err != io.EOF && err != bufio.ErrBufferFull {
			return err
		}
		// Both quotes must be there: of a line that was cut off, another
		// tenant's id could be left.
		line = bytes.TrimSuffix(line, []byte("\n"))
		if n := len(line); !rest && n > 2 && line[0] == '"' && line[n-1] == '"' {
			if id := string(line[1 : n-1]); tenant.Validate(id) == nil {
				c.done[id] = struct{}{}
			}
		}
		if err == io.EOF {
			return nil
		}
	}
}

func (c *FileCheckpoint) begin(again bool) error {
	if again {
		if err := c.file.Truncate(0); err != nil {
			return err
		}
	}
	if _, err := c.file.WriteString(checkpointHeader); err != nil {
		return err
	}
	return c.file.Sync()
}

// Done implements [Checkpoint].
func (c *FileCheckpoint) Done(_ context.Context, id string) (bool, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	_, ok := c.done[id]
	return ok, nil
}

// Mark implements [Checkpoint].
func (c *FileCheckpoint) Mark(_ context.Context, id string) error {
	if err := checkID("checkpoint", id); err != nil {
		return err
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.file == nil {
		return os.ErrClosed
	}
	line := `"` + id + "\"\n"
	if c.torn {
		line = "\n" + line
	}
	c.torn = true // until all of it is written
	if _, err := c.file.WriteString(line); err != nil {
		return err
	}
	if err := c.file.Sync(); err != nil {
		return err
	}
	c.torn = false
	c.mu.Lock()
	c.done[id] = struct{}{}
	c.mu.Unlock()
	return nil
}

// Close closes the file, which stays. It may be called again.
func (c *FileCheckpoint) Close() error {
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.file == nil {
		return nil
	}
	file := c.file
	c.file = nil
	return file.Close()
}
