// A web server with Latchkey: every route needs a key except one, and one route needs a scope.
//
//	PORT=8000 go run ./examples/server
//	curl -H "Authorization: Bearer $KEY" http://127.0.0.1:8000/me
package main

import (
	"encoding/json"
	"log"
	"net/http"
	"os"
	"time"

	"latchkey"
	"latchkey/httpauth"
)

func me(w http.ResponseWriter, r *http.Request) {
	caller := httpauth.Caller(r.Context())
	reply(w, map[string]any{"subject": caller.Subject, "tenant": caller.Tenant, "scopes": caller.Scopes()})
}

func create(w http.ResponseWriter, r *http.Request) {
	reply(w, map[string]any{"created_by": httpauth.Caller(r.Context()).Subject})
}

func reply(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(value); err != nil {
		log.Print(err)
	}
}

func main() {
	client := latchkey.New("")
	minute := time.Minute
	anyKey := httpauth.Require(client, latchkey.Question{MaxAge: &minute})
	writers := httpauth.Require(client, latchkey.Question{MaxAge: &minute, AllScopes: []string{"write"}})

	mux := http.NewServeMux()
	mux.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) { reply(w, "up") })
	mux.Handle("/me", anyKey(http.HandlerFunc(me)))
	mux.Handle("/things", writers(http.HandlerFunc(create)))

	server := &http.Server{Addr: "127.0.0.1:" + os.Getenv("PORT"), Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	log.Fatal(server.ListenAndServe())
}
