package openstackclient

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// project is the one of every token; other is one more that there is.
const (
	project = "11111111111111111111111111111111"
	other   = "22222222222222222222222222222222"
)

// identity is as much of Keystone as commands ask that name a project: tokens
// for anybody, with a catalogue, and two projects.
func identity(t *testing.T, network string) (url string) {
	t.Helper()
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	answer := func(w http.ResponseWriter, status int, body any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(body) // who went away needs no answer
	}
	version := object{"id": "v3.14", "status": "stable", "links": []object{{"rel": "self", "href": server.URL + "/v3/"}}}
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusMultipleChoices, object{"versions": object{"values": []object{version}}})
	})
	mux.HandleFunc("GET /v3/{$}", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, object{"version": version}) })
	mux.HandleFunc("GET /v3", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, object{"version": version}) })
	entry := func(kind, url string) object {
		return object{"type": kind, "name": kind, "id": kind, "endpoints": []object{{"interface": "public", "region": "r", "region_id": "r", "id": kind, "url": url}}}
	}
	mux.HandleFunc("POST /v3/auth/tokens", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Subject-Token", "token")
		now := time.Now().UTC()
		answer(w, http.StatusCreated, object{"token": object{
			"methods": []string{"password"}, "issued_at": now.Format("2006-01-02T15:04:05.000000Z"), "expires_at": now.Add(time.Hour).Format("2006-01-02T15:04:05.000000Z"),
			"user": object{"id": "u", "name": "admin", "domain": object{"id": "default", "name": "Default"}}, "roles": []object{{"id": "a", "name": "admin"}},
			"project": object{"id": project, "name": "one", "domain": object{"id": "default", "name": "Default"}},
			"catalog": []object{entry("network", network), entry("identity", server.URL+"/v3")},
		}})
	})
	names := map[string]string{project: "one", other: "two"}
	show := func(id string) object {
		return object{"id": id, "name": names[id], "domain_id": "default", "enabled": true}
	}
	mux.HandleFunc("GET /v3/projects/{id}", func(w http.ResponseWriter, r *http.Request) {
		if id := r.PathValue("id"); names[id] != "" {
			answer(w, http.StatusOK, object{"project": show(id)})
			return
		}
		answer(w, http.StatusNotFound, object{"error": object{"code": http.StatusNotFound, "message": "no such project", "title": "Not Found"}})
	})
	mux.HandleFunc("GET /v3/projects", func(w http.ResponseWriter, r *http.Request) {
		list := []object{}
		for id, name := range names {
			if asked := r.URL.Query().Get("name"); asked == "" || asked == name {
				list = append(list, show(id))
			}
		}
		answer(w, http.StatusOK, object{"projects": list})
	})
	return server.URL
}
