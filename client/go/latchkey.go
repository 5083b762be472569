// Package latchkey asks the latchkeyd of this host whether the holder of an API key may in.
//
//	client := latchkey.New("")
//	defer client.Close()
//
//	answer, err := client.Verify(ctx, key, nil)
//	if err == nil && answer.Valid() {
//		letIn(*answer.Subject)
//	}
//
// Only a valid answer is a yes; where there is an error, there is no answer.
package latchkey

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"
)

// DefaultSocket is where the daemon listens unless it is configured otherwise.
const DefaultSocket = "/run/latchkey/latchkey.sock"

// DefaultTimeout bounds a call whose context has no deadline, or a later one.
const DefaultTimeout = time.Second

// A Question is what is asked of a key. The zero value asks only whether it is good, and whose.
type Question struct {
	Source    string   // "": every source that this process may use
	AllScopes []string // the key must hold every one of these
	AnyScopes []string // and, if there are any, at least one of these
	// MaxAge: older knowledge gives Unavailable. nil: any age up to the daemon's own limit.
	MaxAge     *time.Duration
	OmitClaims bool // do not tell whose key it is, which is a bit faster
	Metadata   bool // tell the mapped metadata column
}

// An Answer is what the daemon knows of one key. The zero value is no yes.
type Answer struct {
	Verdict Verdict
	// Fresh: no change that committed longer ago than the daemon's bound is missing.
	Fresh bool
	// Age of what it was taken from; negative: never loaded, or nothing was asked.
	Age time.Duration
	// What the key's row does not say, or this process may not know, is nil.
	Source, KeyID, Subject, Tenant *string
	Scope                          *string // the key's scopes, a space between two
	Metadata                       *string
	Expires                        *time.Time // rounded down to a second
}

// Valid says whether the holder may in.
func (a *Answer) Valid() bool { return a != nil && a.Verdict == Valid }

// Scopes are the key's scopes.
func (a *Answer) Scopes() []string {
	if a == nil || a.Scope == nil {
		return nil
	}
	if *a.Scope == "" {
		return []string{}
	}
	return strings.Split(*a.Scope, " ")
}

// HasScope says whether the key holds a scope.
func (a *Answer) HasScope(scope string) bool {
	for _, held := range a.Scopes() {
		if held == scope {
			return true
		}
	}
	return false
}

// A Failure says why there is no answer. The names are the same in all of Latchkey's clients.
type Failure string

// The failures.
const (
	FailedArgument Failure = "argument" // the call makes no sense; nothing was sent
	FailedConnect  Failure = "connect"  // the daemon cannot be reached: not running, or no permission
	FailedTimeout  Failure = "timeout"  // reached, but it did not answer in time
	FailedClosed   Failure = "closed"   // the connection ended before the reply
	FailedProtocol Failure = "protocol" // what answers does not speak Latchkey's protocol
	FailedRefused  Failure = "refused"  // the daemon refused: Error.Refusal says why
	FailedCanceled Failure = "canceled" // the context was cancelled
)

// An Error is returned by every method that has no answer. It never holds a key.
type Error struct {
	Failure Failure
	Refusal string // if Failure is FailedRefused: the name of PROTOCOL.md's error
	Text    string // for a log
	cause   error
}

func (e *Error) Error() string { return e.Text }

// Unwrap gives context.DeadlineExceeded, context.Canceled or a system error, if it was one.
func (e *Error) Unwrap() error { return e.cause }

// Would there perhaps be an answer if it were asked again?
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

// Verify asks whether the holder of a key may in. A nil question asks nothing further.
func (c *Client) Verify(ctx context.Context, key string, question *Question) (*Answer, error) {
	answers, err := c.VerifyMany(ctx, []string{key}, question)
	if err != nil {
		return nil, err
	}
	return &answers[0], nil
}

// VerifyMany gives one answer to each key, in their order, in as few requests as possible.
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

// Sync returns once everything is in force that had committed in the databases before the call, and
// says how long that took. If it cannot be proven within the timeout (1 ms to 60 s; it is added to
// the client's own), the error's Refusal is "timed_out".
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

// Status tells how the daemon is: the object that `latchkey status --json` prints.
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
