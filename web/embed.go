// Package web is the topology page: what a project's or a cloud's networks look
// like, drawn by the browser from the public API.
//
// It holds files and serves them. It must not know what the API answers: the
// page is one more client, with no more rights than its reader's token.
package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"net/http"
	"time"
)

//go:embed index.html app.js style.css icon.svg
var files embed.FS

// policy lets the page load and call nothing but its own origin, run no inline
// script and be shown in no frame: names in it are tenants' input.
const policy = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"

type file struct {
	name, contentType, tag string
	content                []byte
}

// New returns the handler of the page. It answers GET and HEAD of "" (the page)
// and of the files that this names, relative to wherever it is mounted;
// everything else is 404. Mount it with http.StripPrefix below a path that ends
// in a slash, beside v2.0. It needs no token: there is nothing secret in it.
func New() http.Handler {
	pages := map[string]file{}
	for _, f := range []struct{ path, name, contentType string }{
		{"", "index.html", "text/html; charset=utf-8"},
		{"app.js", "app.js", "text/javascript; charset=utf-8"},
		{"style.css", "style.css", "text/css; charset=utf-8"},
		{"icon.svg", "icon.svg", "image/svg+xml"},
	} {
		content, err := files.ReadFile(f.name)
		if err != nil {
			panic(err) // the list above differs from what is embedded
		}
		sum := sha256.Sum256(content)
		pages[f.path] = file{f.name, f.contentType, `"` + hex.EncodeToString(sum[:12]) + `"`, content}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		f, ok := pages[r.URL.Path]
		switch {
		case !ok:
			http.NotFound(w, r)
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		default:
			h.Set("Content-Type", f.contentType)
			// Ask each time, get it once: a new binary is seen at once.
			h.Set("Cache-Control", "no-cache")
			h.Set("ETag", f.tag)
			http.ServeContent(w, r, f.name, time.Time{}, bytes.NewReader(f.content))
		}
	})
}
