// Package httpauth is middleware for net/http: every request needs a valid key.
//
//	http.ListenAndServe(addr, httpauth.Require(client, latchkey.Question{AllScopes: []string{"read"}})(mux))
//
// Refusals are JSON with the status codes of RFC 6750 §3.1: 401 without a valid key, 403 if the key
// lacks a scope, 503 if there is no answer, 400 for several credentials.
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

// Caller returns the answer about the request's key; nil outside of Require.
func Caller(ctx context.Context) *latchkey.Answer {
	answer, _ := ctx.Value(answerKey{}).(*latchkey.Answer)
	return answer
}

// ErrSeveralCredentials means that a request presents more than one credential (RFC 6750 §2 forbids
// it): another component might use a different one than this middleware.
var ErrSeveralCredentials = errors.New("more than one credential in a request")

// Key returns the key in `Authorization: Bearer KEY` or in `X-API-Key: KEY`; "" if there is none.
// It returns ErrSeveralCredentials if a header occurs twice, or if both contain a key.
func Key(r *http.Request) (string, error) {
	var keys []string
	authorizations := r.Header.Values("Authorization")
	for _, value := range authorizations {
		if len(value) > 7 && strings.EqualFold(value[:7], "Bearer ") {
			keys = append(keys, trimmed(value[7:]))
		}
	}
	for _, value := range r.Header.Values("X-API-Key") {
		keys = append(keys, trimmed(value))
	}
	presented := ""
	for _, key := range keys {
		if key != "" && presented != "" {
			return "", ErrSeveralCredentials
		}
		if key != "" {
			presented = key
		}
	}
	if len(authorizations) > 1 {
		return "", ErrSeveralCredentials
	}
	return presented, nil
}

// trimmed removes the white space of RFC 9110 §5.6.3; Unicode's other white space belongs to a key.
func trimmed(value string) string { return strings.Trim(value, " \t") }

// Require passes requests whose key is valid and meets the question. It panics if the question is
// invalid, as regexp.MustCompile does, so that the error appears when the program starts and not at
// each request.
func Require(client *latchkey.Client, question latchkey.Question) func(http.Handler) http.Handler {
	// Copies, because the owner of the lists may change them.
	question.AllScopes = append([]string(nil), question.AllScopes...)
	question.AnyScopes = append([]string(nil), question.AnyScopes...)
	if question.MaxAge != nil {
		age := *question.MaxAge
		question.MaxAge = &age
	}
	// With no keys this sends nothing, but it checks the question.
	if _, err := client.VerifyMany(context.Background(), nil, &question); err != nil {
		panic("httpauth.Require: " + err.Error())
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			key, err := Key(r)
			if err != nil {
				refuse(w, http.StatusBadRequest, "invalid_request", `Bearer error="invalid_request"`)
				return
			}
			if key == "" {
				refuse(w, http.StatusUnauthorized, "missing_key", "Bearer")
				return
			}
			answer, err := client.Verify(r.Context(), key, &question)
			switch {
			case err != nil:
				// Refuse cancelled requests, too: returning from a handler without a reply means 200 OK. Either
				// the client has gone or this server is stopping; neither is logged.
				if !errors.Is(err, context.Canceled) {
					log.Printf("no answer: %v", err)
				}
				refuse(w, http.StatusServiceUnavailable, "unavailable", "1")
			case answer.Valid():
				next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), answerKey{}, answer)))
			case answer.Verdict == latchkey.InsufficientScope:
				refuse(w, http.StatusForbidden, "insufficient_scope", `Bearer error="insufficient_scope"`)
			case answer.Verdict == latchkey.Unavailable || answer.Verdict == latchkey.Forbidden:
				// A problem of this service: the holder of the key must not conclude that the key is bad.
				log.Printf("no answer: latchkeyd says %v", answer.Verdict)
				refuse(w, http.StatusServiceUnavailable, "unavailable", "1")
			default:
				// Do not reveal the reason to the holder.
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
