package web

import (
	"io/fs"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

func request(method, path, tag string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "/topology/"+path, nil)
	if tag != "" {
		r.Header.Set("If-None-Match", tag)
	}
	w := httptest.NewRecorder()
	http.StripPrefix("/topology/", New()).ServeHTTP(w, r)
	return w
}

func TestEveryFileIsServed(t *testing.T) {
	served := map[string]string{"index.html": "", "app.js": "app.js", "style.css": "style.css", "icon.svg": "icon.svg"}
	types := map[string]string{
		"index.html": "text/html; charset=utf-8", "app.js": "text/javascript; charset=utf-8",
		"style.css": "text/css; charset=utf-8", "icon.svg": "image/svg+xml",
	}
	entries, err := fs.ReadDir(files, ".")
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(served) {
		t.Errorf("%d files are embedded; %d are served", len(entries), len(served))
	}
	for _, e := range entries {
		content, err := files.ReadFile(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		w := request("GET", served[e.Name()], "")
		if w.Code != 200 || w.Body.String() != string(content) {
			t.Errorf("GET %q: %d, %d bytes; want %s, %d bytes", served[e.Name()], w.Code, w.Body.Len(), e.Name(), len(content))
		}
		for name, want := range map[string]string{
			"Content-Type": types[e.Name()], "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache",
		} {
			if got := w.Header().Get(name); got != want {
				t.Errorf("%s: %s = %q; want %q", e.Name(), name, got, want)
			}
		}
		csp := w.Header().Get("Content-Security-Policy")
		if !strings.HasPrefix(csp, "default-src 'self';") || strings.Contains(csp, "unsafe") || !strings.Contains(csp, "frame-ancestors 'none'") {
			t.Errorf("%s: Content-Security-Policy = %q", e.Name(), csp)
		}
		tag := w.Header().Get("ETag")
		if w := request("GET", served[e.Name()], tag); tag == "" || w.Code != http.StatusNotModified || w.Body.Len() != 0 {
			t.Errorf("%s again with ETag %s: %d, %d bytes", e.Name(), tag, w.Code, w.Body.Len())
		}
		if w := request("GET", served[e.Name()], `"another"`); w.Code != 200 {
			t.Errorf("%s with another ETag: %d", e.Name(), w.Code)
		}
		if w := request("HEAD", served[e.Name()], ""); w.Code != 200 || w.Body.Len() != 0 || w.Header().Get("ETag") != tag {
			t.Errorf("HEAD %s: %d, %d bytes, %v", e.Name(), w.Code, w.Body.Len(), w.Header())
		}
	}
}

func TestNothingElseIsServed(t *testing.T) {
	for _, path := range []string{"embed.go", "embed_test.go", "none.js", "app.js/", "/", ".", "..", "../v2.0/networks", "%2e%2e/app.js", "index.html/"} {
		if w := request("GET", path, ""); w.Code != 404 || strings.Contains(w.Body.String(), "app.js") {
			t.Errorf("GET %q: %d %s", path, w.Code, w.Body)
		}
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS"} {
		if w := request(method, "app.js", ""); w.Code != 405 || w.Header().Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %d %v", method, w.Code, w.Header())
		}
	}
}

// The browser refuses inline scripts and styles, and a script that makes markup
// of text would make it of tenants' text.
func TestFilesKeepThePolicy(t *testing.T) {
	for name, forbidden := range map[string]string{
		"index.html": `(?i)<style|<script>|\sstyle=|\son[a-z]+=|https?://|//[a-z]`,
		"app.js":     `innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|https?://[^w]|localStorage|sessionStorage|\.cookie|setAttribute\("(style|on)`,
		"style.css":  `@import|url\(|https?://`,
	} {
		content, err := files.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if found := regexp.MustCompile(forbidden).FindString(string(content)); found != "" {
			t.Errorf("%s has %q", name, found)
		}
	}
}
