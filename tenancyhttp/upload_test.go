package tenancyhttp_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/tenancyhttp"
)

// The files of an upload are gone when the request is over, as without the
// middleware, also when its handler panics and something in front recovers.
func TestFilesOfAnUpload(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	mw, err := tenancyhttp.New(tenancyhttp.Config{Source: subdomain, Authorize: tenancyhttp.Anyone})
	require.NoError(t, err)
	handler := mw(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if err := r.ParseMultipartForm(1); err != nil {
			t.Error(err)
		}
		if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
			t.Errorf("the upload is in no file: %v, %v", files, err)
		}
		if r.URL.Path == "/panic" {
			panic("boom")
		}
	}))
	for _, path := range []string{"/", "/panic"} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer func() { _ = recover() }()
			handler.ServeHTTP(w, r)
		}))
		r, err := http.NewRequest(http.MethodPost, server.URL+path, strings.NewReader(
			"--x\r\nContent-Disposition: form-data; name=\"f\"; filename=\"f\"\r\n\r\nof acme\r\n--x--\r\n"))
		require.NoError(t, err)
		r.Host = "acme.example.com"
		r.Header.Set("Content-Type", "multipart/form-data; boundary=x")
		res, err := server.Client().Do(r)
		require.NoError(t, err)
		_ = res.Body.Close()
		require.Equal(t, http.StatusOK, res.StatusCode)
		server.Close() // waits for the end of the request
		files, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Empty(t, files, path)
	}
}
