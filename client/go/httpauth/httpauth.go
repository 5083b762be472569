// Package httpauth is middleware for net/http: no request without a good key.
//
//	http.ListenAndServe(addr, httpauth.Require(client, latchkey.Question{AllScopes: []string{"read"}})(mux))
//
// Replies to those who may not in are JSON with the status codes of RFC 6750 §3.1: 401 without a good
// key, 403 where the key lacks a scope, 503 where it cannot be known, 400 for several credentials.
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

// ErrSeveralCredentials says that a request presents more than one, which it must not (RFC 6750 §2):
// whoever checks one of them, others may believe another.
var ErrSeveralCredentials = errors.New("more than one credential in a request")

// Key is the key in `Authorization: Bearer KEY` or in `X-API-Key: KEY`; "" if there is none.
// ErrSeveralCredentials: a header comes twice, or both hold a key.
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

// trimmed cuts off the white space of RFC 9110 §5.6.3; what else Unicode takes for it belongs to a key.
func trimmed(value string) string { return strings.Trim(value, " \t") }

// Require lets requests through whose key is valid and meets the question. It panics if the question
// cannot be asked, as regexp.MustCompile does: that is told when the program starts, not at each request.
func Require(client *latchkey.Client, question latchkey.Question) func(http.Handler) http.Handler {
	// Copies: whoever holds the lists may empty them.
	question.AllScopes = append([]string(nil), question.AllScopes...)
	question.AnyScopes = append([]string(nil), question.AnyScopes...)
	if question.MaxAge != nil {
		age := *question.MaxAge
		question.MaxAge = &age
	}
	// This asks of no key, and so sends nothing, but it looks at the question.
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
				// A cancelled request, too, is refused: to return from a handler is to say 200 OK. Whoever
				// asked has gone, or this server ends; neither is news for the log.
				if !errors.Is(err, context.Canceled) {
					log.Printf("no answer: %v", err)
				}
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
