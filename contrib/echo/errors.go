package tenancyecho

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/labstack/echo/v5"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancyhttp"
)

// httpError is an error with the answer to it.
type httpError struct {
	*echo.HTTPError
	reason error
}

// Error is for logs, and has the reason.
func (e *httpError) Error() string { return e.reason.Error() }

func (e *httpError) Unwrap() []error { return []error{e.HTTPError, e.reason} }

// MarshalJSON has echo.DefaultHTTPErrorHandler send the message alone, whether it
// exposes errors or not: a tenant that may not be used must look like one that
// doesn't exist.
func (e *httpError) MarshalJSON() ([]byte, error) { return json.Marshal(e.HTTPError) }

// newHTTPError returns err with what tenancyhttp.Error answers, whose headers it
// sets in c's response.
func newHTTPError(c *echo.Context, err error) error {
	w := recorder{header: c.Response().Header()}
	tenancyhttp.Error(&w, c.Request(), err)
	w.header.Del(echo.HeaderContentType) // up to the HTTPErrorHandler
	return &httpError{echo.NewHTTPError(w.status, strings.TrimSpace(w.text)), err}
}

// mapped returns what a handler has returned, with an answer if it is an error of
// package tenancy's that has none.
func mapped(c *echo.Context, err error) error {
	is := new(tenancy.Error)
	if !errors.As(err, &is) {
		return err
	}
	// A status in it is of whom the resolver has asked, and no answer.
	if status := echo.StatusCode(err); status != 0 && status != echo.StatusCode(is) {
		return err
	}
	return newHTTPError(c, err)
}

// recorder is a ResponseWriter that sends nothing.
type recorder struct {
	header http.Header
	status int
	text   string
	err    error // for New
}

func (w *recorder) Header() http.Header    { return w.header }
func (w *recorder) WriteHeader(status int) { w.status = status }
func (w *recorder) Write(p []byte) (int, error) {
	w.text += string(p)
	return len(p), nil
}
