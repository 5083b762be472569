// Package latchkey asks the latchkeyd of this host whether to admit the holder of an API key.
//
//	client := latchkey.New("")
//	defer client.Close()
//
//	answer, err := client.Verify(ctx, key, nil)
//	if err == nil && answer.Valid() {
//		letIn(*answer.Subject)
//	}
//
// Only a valid answer is a yes. If a method returns an error, there is no answer.
package latchkey

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"
)

// DefaultSocket is the daemon's default socket.
const DefaultSocket = "/run/latchkey/latchkey.sock"

// DefaultTimeout limits a call whose context has no deadline, or a later one.
const DefaultTimeout = time.Second

// A Question contains the terms of a request. The zero value asks only for the verdict and the
// claims.
type Question struct {
	Source    string   // "": every source that this process may use
	AllScopes []string // the key must hold all of these
	AnyScopes []string // if there are any: the key must hold at least one of these
	// MaxAge: older data gives Unavailable. nil: any age up to the daemon's own limit.
	MaxAge     *time.Duration
	OmitClaims bool // do not return claims, which is slightly faster
	Metadata   bool // return the mapped metadata column
}

// An Answer is the daemon's verdict and data on one key. The zero value is not a yes.
type Answer struct {
	Verdict Verdict
	// Fresh is true if no change is missing that committed longer ago than the daemon's bound.
	Fresh bool
	// Age of the data behind the answer; negative: never loaded, or no source asked.
	Age time.Duration
	// nil if the key's row has no value or this process may not know it.
	Source, KeyID, Subject, Tenant *string
	Scope                          *string // the key's scopes, separated by one space
	Metadata                       *string
	Expires                        *time.Time // rounded down to a second
}

// Valid reports whether the holder is admitted.
func (a *Answer) Valid() bool { return a != nil && a.Verdict == Valid }

// Scopes returns the key's scopes; nil if there is no scope claim.
func (a *Answer) Scopes() []string {
	if a == nil || a.Scope == nil {
		return nil
	}
	if *a.Scope == "" {
		return []string{}
	}
	return strings.Split(*a.Scope, " ")
}

// HasScope reports whether the key holds a scope.
func (a *Answer) HasScope(scope string) bool {
	for _, held := range a.Scopes() {
		if held == scope {
			return true
		}
	}
	return false
}

// A Failure is the reason why there is no answer. The names are identical in all clients of
// Latchkey.
type Failure string

// The failures.
const (
	FailedArgument Failure = "argument" // the arguments are invalid; nothing was sent
	FailedConnect  Failure = "connect"  // the daemon cannot be reached: not running, or no permission
	FailedTimeout  Failure = "timeout"  // reached, but it did not answer in time
	FailedClosed   Failure = "closed"   // the connection ended before the reply
	FailedProtocol Failure = "protocol" // the peer does not speak Latchkey's protocol
	FailedRefused  Failure = "refused"  // the daemon refused: Error.Refusal has the reason
	FailedCanceled Failure = "canceled" // the context was cancelled
)

// Every method that has no answer returns an Error. It never contains a key.
type Error struct {
	Failure Failure
	Refusal string // if Failure is FailedRefused: the error's name in PROTOCOL.md
	Text    string // for a log
	cause   error
}

func (e *Error) Error() string { return e.Text }

// Unwrap returns context.DeadlineExceeded, context.Canceled or a system error, if there is one.
func (e *Error) Unwrap() error { return e.cause }

// mayPass reports whether a retry may succeed.
func (e *Error) mayPass() bool {
	switch e.Failure {
	case FailedConnect:
		return isPassing(e.cause)
	case FailedClosed:
		return true
	case FailedRefused:
		return e.Refusal == "overloaded" || e.Refusal == "stopping"
	}
	return false
}

func argument(err error) *Error {
	return &Error{Failure: FailedArgument, Text: "this cannot be asked: " + err.Error()}
}

// Verify verifies one key. A nil question means the zero Question.
func (c *Client) Verify(ctx context.Context, key string, question *Question) (*Answer, error) {
	answers, err := c.VerifyMany(ctx, []string{key}, question)
	if err != nil {
		return nil, err
	}
	return &answers[0], nil
}

// VerifyMany returns one answer per key, in the order of the keys, in as few requests as possible.
func (c *Client) VerifyMany(ctx context.Context, keys []string, question *Question) ([]Answer, error) {
	asked, err := encodeTerms(question)
	if err != nil {
		return nil, argument(err)
	}
	ctx, cancel := c.bounded(ctx, 0)
	defer cancel()
	answers := make([]Answer, 0, len(keys))
	for len(keys) != 0 {
		batch := keys[:asked.fitting(keys)]
		request := request{typeVerify, func(to []byte, id uint64) []byte {
			return appendKeys(to, typeVerify, id, &asked, batch)
		}}
		err := c.ask(ctx, request, func(body []byte) error {
			found, err := decodeVerified(body)
			if err == nil && len(found) != len(batch) {
				err = wireError("bad_count")
			}
			answers = append(answers, found...)
			return err
		})
		if err != nil {
			return nil, err
		}
		keys = keys[len(batch):]
	}
	return answers, nil
}

// Ping returns once the daemon has answered.
func (c *Client) Ping(ctx context.Context) error {
	ctx, cancel := c.bounded(ctx, 0)
	defer cancel()
	return c.ask(ctx, empty(typePing), decodeEmpty)
}

// Sync returns once every change that committed in the databases before the call is in force; the
// result is the waiting time. If this cannot be proven within the timeout (1 ms to 60 s; it is
// added to the client's own), the error's Refusal is "timed_out".
func (c *Client) Sync(ctx context.Context, timeout time.Duration) (time.Duration, error) {
	if timeout < time.Millisecond || timeout > syncTimeoutMax {
		return 0, argument(errors.New("a sync timeout is 1 to 60000 milliseconds"))
	}
	ctx, cancel := c.bounded(ctx, timeout)
	defer cancel()
	var waited time.Duration
	request := request{typeSync, func(to []byte, id uint64) []byte { return appendSync(to, id, timeout) }}
	err := c.ask(ctx, request, func(body []byte) (err error) {
		waited, err = decodeSynced(body)
		return err
	})
	return waited, err
}

// Status returns the daemon's status: the object that `latchkey status --json` prints.
func (c *Client) Status(ctx context.Context) (json.RawMessage, error) {
	return c.text(ctx, empty(typeStatus))
}

// Why explains the verdict on one key: the object that `latchkey why --json` prints.
func (c *Client) Why(ctx context.Context, key string, question *Question) (json.RawMessage, error) {
	asked, err := encodeTerms(question)
	if err != nil {
		return nil, argument(err)
	}
	return c.text(ctx, request{typeWhy, func(to []byte, id uint64) []byte {
		return appendKeys(to, typeWhy, id, &asked, []string{key})
	}})
}

func (c *Client) text(ctx context.Context, request request) (json.RawMessage, error) {
	ctx, cancel := c.bounded(ctx, 0)
	defer cancel()
	var text string
	err := c.ask(ctx, request, func(body []byte) (err error) {
		text, err = decodeText(body)
		if err == nil && !json.Valid(body) {
			err = wireError("no JSON")
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return json.RawMessage(text), nil
}
