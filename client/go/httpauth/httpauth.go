// Package httpauth is middleware for net/http: no request without a good key.
//
//	http.ListenAndServe(addr, httpauth.Require(client, latchkey.Question{AllScopes: []string{"read"}})(mux))
//
// Replies to those who may not in are JSON with the status codes of RFC 6750 §3.1: 401 without a good
// key, 403 where the key lacks a scope, 503 where it cannot be known.
package httpauth

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"strings"

	"latchkey"
)

type answerKey struct{}

// Caller is whose key came with the request: nil outside of Require.
func Caller(ctx context.Context) *latchkey.Answer {
	answer, _ := ctx.Value(answerKey{}).(*latchkey.Answer)
	return answer
}

// Key is the key in `Authorization: Bearer KEY`, or else in `X-API-Key: KEY`; "" if there is none.
func Key(r *http.Request) string {
	value := r.Header.Get("Authorization")
	if len(value) > 7 && strings.EqualFold(value[:7], "Bearer ") {
		if key := strings.TrimSpace(value[7:]); key != "" {
			return key
		}
	}
	return strings.TrimSpace(r.Header.Get("X-API-Key"))
}

// Require lets requests through whose key is valid and meets the question.
func Require(client *latchkey.Client, question latchkey.Question) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			key := Key(r)
			if key == "" {
				refuse(w, http.StatusUnauthorized, "missing_key", "Bearer")
				return
			}
			answer, err := client.Verify(r.Context(), key, &question)
			switch {
			case errors.Is(err, context.Canceled):
				return // nobody waits for it any more
			case err != nil:
				log.Printf("no answer: %v", err)
				refuse(w, http.StatusServiceUnavailable, "unavailable", "1")
			case answer.Valid():
				next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), answerKey{}, answer)))
			case answer.Verdict == latchkey.InsufficientScope:
				refuse(w, http.StatusForbidden, "insufficient_scope", `Bearer error="insufficient_scope"`)
			case answer.Verdict == latchkey.Unavailable || answer.Verdict == latchkey.Forbidden:
				// Our own fault, and no reason for the holder of the key to throw it away.
				log.Printf("no answer: latchkeyd says %v", answer.Verdict)
				refuse(w, http.StatusServiceUnavailable, "unavailable", "1")
			default:
				// Which no it is, is not a stranger's business.
				refuse(w, http.StatusUnauthorized, "invalid_token", `Bearer error="invalid_token"`)
			}
		})
	}
}

func refuse(w http.ResponseWriter, status int, name, value string) {
	header := "WWW-Authenticate"
	if status == http.StatusServiceUnavailable {
		header = "Retry-After"
	}
	w.Header().Set(header, value)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, "{\"error\":%q}\n", name)
}
