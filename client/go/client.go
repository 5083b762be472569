package latchkey

import (
	"context"
	cryptorand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"
)

const (
	// MaxConnections is the maximum number of connections per client. Further calls wait for one.
	MaxConnections = 64

	delayFirst = 2 * time.Millisecond
	delayMax   = 250 * time.Millisecond
	readBytes  = 16384
)

// A Client verifies keys with one daemon. Any number of goroutines may use it; each call uses a
// connection of its own, which is made when needed and kept for later calls.
//
// Every call ends at its context's deadline, or earlier after the client's own timeout, which
// covers connecting and all retries. Within it, calls that fail because of a restart of the daemon,
// a full backlog or an overload are retried.
type Client struct {
	path    string
	timeout time.Duration
	room    chan struct{} // one element per connection in use

	mutex  sync.Mutex
	idle   []*connection
	closed bool
}

// New returns a client of the daemon that listens on path. "" selects $LATCHKEY_SOCKET if set, or
// else DefaultSocket. It does not connect; the first request does.
func New(path string) *Client {
	if path == "" {
		path = os.Getenv("LATCHKEY_SOCKET")
	}
	if path == "" {
		path = DefaultSocket
	}
	return &Client{path: path, timeout: DefaultTimeout, room: make(chan struct{}, MaxConnections)}
}

// WithTimeout returns a client of the same daemon with another timeout and its own connections.
func (c *Client) WithTimeout(timeout time.Duration) *Client {
	other := New(c.path)
	other.timeout = timeout
	return other
}

// Close closes all idle connections; connections in use are closed after their calls.
func (c *Client) Close() error {
	c.mutex.Lock()
	c.closed = true
	c.mutex.Unlock()
	c.forgetIdle()
	return nil
}

func (c *Client) bounded(ctx context.Context, more time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, c.timeout+more)
}

// ---- retries until an answer or the deadline

// A request may be repeated, because no request has side effects.
type request struct {
	kind   byte
	append func(to []byte, id uint64) []byte
}

func empty(kind byte) request {
	return request{kind, func(to []byte, id uint64) []byte { return appendEmpty(to, kind, id) }}
}

// ask passes the body of the reply to decode. ctx has a deadline.
func (c *Client) ask(ctx context.Context, request request, decode func([]byte) error) error {
	delay := delayFirst
	for {
		err := c.askOnce(ctx, request, decode)
		if err == nil {
			return nil
		}
		if !err.mayPass() {
			return err
		}
		// An event that ended one connection has most likely ended all.
		c.forgetIdle()
		if !sleep(ctx, delay/2+time.Duration(rand.Int63n(int64(delay/2)+1))) {
			if errors.Is(ctx.Err(), context.Canceled) {
				return ended(ctx, "")
			}
			return err
		}
		if delay *= 2; delay > delayMax {
			delay = delayMax
		}
	}
}

// sleep reports whether time is left after the delay.
func sleep(ctx context.Context, delay time.Duration) bool {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (c *Client) askOnce(ctx context.Context, request request, decode func([]byte) error) *Error {
	select {
	case c.room <- struct{}{}:
		defer func() { <-c.room }()
	case <-ctx.Done():
		return ended(ctx, fmt.Sprintf("%d other calls were under way", MaxConnections))
	}
	conn, err := c.take()
	if err != nil {
		return err
	}
	err = conn.ask(ctx, request, decode)
	if err == nil || err.Failure == FailedRefused && !conn.over {
		c.keep(conn)
	} else {
		// Also after a timeout: a late reply would be taken for the next request's.
		conn.Close()
	}
	return err
}

func (c *Client) take() (*connection, *Error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.closed {
		return nil, argument(errors.New("the client is closed"))
	}
	if last := len(c.idle) - 1; last >= 0 {
		conn := c.idle[last]
		c.idle = c.idle[:last]
		return conn, nil
	}
	return connect(c.path)
}

func (c *Client) keep(conn *connection) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.closed {
		conn.Close()
		return
	}
	c.idle = append(c.idle, conn)
}

func (c *Client) forgetIdle() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for _, conn := range c.idle {
		conn.Close()
	}
	c.idle = nil
}

// ---- one connection

type connection struct {
	net.Conn
	buffer []byte
	over   bool   // the daemon closes it
	lastID uint64 // starts at an unpredictable number: replies to other clients' requests match none
}

// nextID returns 1 to 2^64 - 1; id 0 stands for the connection.
func (c *connection) nextID() uint64 {
	if c.lastID++; c.lastID == 0 {
		c.lastID = 1
	}
	return c.lastID
}

// isPassing reports errors that occur while a daemon restarts or is overloaded. AF_UNIX's
// connect(2) does not wait for room in a full backlog: it fails with EAGAIN.
func isPassing(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) ||
		errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.ECONNRESET)
}

func connect(path string) (*connection, *Error) {
	made, err := net.Dial("unix", path) // does not wait
	if err == nil {
		var first [8]byte
		if _, err := cryptorand.Read(first[:]); err != nil {
			made.Close()
			return nil, &Error{Failure: FailedConnect, Text: "no random numbers: " + err.Error(), cause: err}
		}
		return &connection{Conn: made, buffer: make([]byte, 0, readBytes),
			lastID: binary.LittleEndian.Uint64(first[:])}, nil
	}
	hint := ""
	switch {
	case errors.Is(err, syscall.ENOENT):
		hint = ". Is latchkeyd running, and is this its socket?"
	case errors.Is(err, syscall.ECONNREFUSED):
		hint = ". latchkeyd is not running."
	case errors.Is(err, syscall.EACCES):
		hint = ". This user may not open it: see latchkeyd's `mode` and `group`."
	case errors.Is(err, syscall.EAGAIN):
		hint = ". Too many wait to be connected."
	}
	var system *os.SyscallError
	reason := err.Error()
	if errors.As(err, &system) {
		reason = system.Err.Error()
	}
	text := fmt.Sprintf("cannot connect to %s: %s%s", path, reason, hint)
	return nil, &Error{Failure: FailedConnect, Text: text, cause: err}
}

func (c *connection) ask(ctx context.Context, request request, decode func([]byte) error) *Error {
	// Cancelling the context before its deadline wakes a goroutine that waits for the socket.
	deadline, _ := ctx.Deadline()
	c.SetDeadline(deadline)
	answered, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				c.SetDeadline(time.Unix(1, 0))
			}
		case <-answered:
		}
	}()
	err := c.exchange(ctx, request, decode)
	close(answered)
	<-watched
	return err
}

func (c *connection) exchange(ctx context.Context, request request, decode func([]byte) error) *Error {
	id := c.nextID()
	frame := request.append(c.buffer[:0], id)
	// The error is ignored: the reader finds the end, and perhaps the reason.
	_, _ = c.Write(frame)
	for i := range frame {
		frame[i] = 0
	}
	if cap(frame) > cap(c.buffer) {
		c.buffer = frame
	}
	head, body, err := c.read()
	var wire wireError
	switch {
	case errors.As(err, &wire):
		return notLatchkeyd(wire)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return ended(ctx, "latchkeyd did not answer in time")
	case err != nil:
		return &Error{Failure: FailedClosed, Text: "latchkeyd closed the connection before it answered"}
	case head.kind == typeError && (head.id == 0 || head.id == id):
		return c.refused(head, body)
	case head.kind != request.kind|0x80 || head.id != id:
		return notLatchkeyd(wireError("bad_type"))
	}
	if err := decode(body); err != nil {
		return notLatchkeyd(err)
	}
	return nil
}

// read returns one frame. No bytes may follow it, because no other request is under way.
func (c *connection) read() (header, []byte, error) {
	b, need := c.buffer[:0], headerBytes
	var head header
	for len(b) < need {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		got, err := c.Read(b[len(b):cap(b)])
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if late := c.arrived(b[len(b):cap(b)]); late > 0 {
				got, err = late, nil
			}
		}
		b = b[:len(b)+got]
		if got == 0 && err == nil {
			err = io.ErrNoProgress
		}
		if err != nil {
			return head, nil, err
		}
		if need == headerBytes && len(b) >= headerBytes {
			if head, err = decodeHeader(b); err != nil {
				return head, nil, err
			}
			need = head.length
		}
	}
	c.buffer = b
	if len(b) > need {
		return head, nil, wireError("trailing")
	}
	return head, b[headerBytes:], nil
}

// arrived reads available bytes after the deadline. Read returns an error at that point, but the
// reply may have arrived in time while this process was delayed (on a host that slept, for
// example).
func (c *connection) arrived(b []byte) (got int) {
	socket, is := c.Conn.(syscall.Conn)
	if !is {
		return 0
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return 0
	}
	c.SetReadDeadline(time.Time{})
	_ = raw.Read(func(descriptor uintptr) bool {
		if count, err := syscall.Read(int(descriptor), b); err == nil { // does not wait
			got = count
		}
		return true
	})
	c.SetReadDeadline(time.Unix(1, 0))
	return got
}

func (c *connection) refused(head header, body []byte) *Error {
	name, text, err := decodeError(body)
	if err != nil {
		return notLatchkeyd(err)
	}
	switch name {
	case "unknown_source", "timed_out", "no_reasons", "operation_not_allowed":
		c.over = head.id == 0
	default:
		c.over = true
	}
	// An impostor must not write lines into a log.
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) ||
			unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector) {
			return '?'
		}
		return r
	}, text)
	return &Error{Failure: FailedRefused, Refusal: name,
		Text: fmt.Sprintf("latchkeyd refused: %s (%s)", text, name)}
}

func notLatchkeyd(err error) *Error {
	return &Error{Failure: FailedProtocol,
		Text: fmt.Sprintf("what answers does not speak latchkeyd's protocol (%s)", err)}
}

func ended(ctx context.Context, text string) *Error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return &Error{Failure: FailedCanceled, Text: "the call was cancelled", cause: context.Canceled}
	}
	return &Error{Failure: FailedTimeout, Text: text, cause: context.DeadlineExceeded}
}
