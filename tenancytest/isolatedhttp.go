package tenancytest

import (
	"context"
	"fmt"
	"io"
	"net/http"
)

// HTTP makes an http.Handler one for [RequireIsolated]. request makes the
// request of a call: with the tenant in the host, the path or a token, whatever
// the application's middleware looks for (see [tenant.ID]). Its context is
// replaced by the call's, in which the tenant is already: a route that lacks the
// middleware is not found so. Status, headers and body are all searched. A status
// of 400 or more is an error.
func HTTP(h http.Handler, request func(ctx context.Context) (*http.Request, error)) func(context.Context, io.Writer) error {
	return func(ctx context.Context, w io.Writer) error {
		r, err := request(ctx)
		if err != nil {
			return fmt.Errorf("making the request: %w", err)
		}
		if r.Body == nil { // as a server has it
			r.Body = http.NoBody
		}
		rw := &response{w: w, header: http.Header{}}
		h.ServeHTTP(rw, r.WithContext(ctx))
		rw.WriteHeader(http.StatusOK)
		if rw.err != nil {
			return rw.err
		}
		if rw.status >= http.StatusBadRequest {
			return fmt.Errorf("the handler answered %d %s", rw.status, http.StatusText(rw.status))
		}
		return nil
	}
}

// response writes all of a response to w.
type response struct {
	w      io.Writer
	header http.Header
	status int // 0 before WriteHeader
	err    error
}

func (r *response) Header() http.Header { return r.header }

func (r *response) WriteHeader(status int) {
	if r.status != 0 {
		return
	}
	if status < 100 || status > 199 || status == http.StatusSwitchingProtocols {
		r.status = status // others come before the answer
	}
	if _, r.err = fmt.Fprintf(r.w, "%d %s\r\n", status, http.StatusText(status)); r.err != nil {
		return
	}
	if r.err = r.header.Write(r.w); r.err == nil {
		_, r.err = io.WriteString(r.w, "\r\n")
	}
}

func (r *response) Write(p []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	return r.w.Write(p)
}

// Flush implements [http.Flusher]: everything is written at once.
func (r *response) Flush() { r.WriteHeader(http.StatusOK) }
