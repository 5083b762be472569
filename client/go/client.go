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
	// MaxConnections is how many connections a client has at most. Further calls wait for one.
	MaxConnections = 64

	delayFirst = 2 * time.Millisecond
	delayMax   = 250 * time.Millisecond
	readBytes  = 16384
)

// A Client asks one daemon. It may be used by any number of goroutines; each call has a connection
// to itself, which is made when it is needed and kept for the next one.
//
// Every call ends at its context's deadline, or earlier after the client's own timeout, which covers
// connecting and all retries: what a restart of the daemon, a full backlog or an overload made fail
// is tried again.
type Client struct {
	path    string
	timeout time.Duration
	room    chan struct{} // one for each connection that may still be used

	mutex  sync.Mutex
	idle   []*connection
	closed bool
}

// New makes a client of the daemon that listens on a path; "" stands for $LATCHKEY_SOCKET, if that
// is set, or else for DefaultSocket. It does not connect: the first question does.
func New(path string) *Client {
	if path == "" {
		path = os.Getenv("LATCHKEY_SOCKET")
	}
	if path == "" {
		path = DefaultSocket
	}
	return &Client{path: path, timeout: DefaultTimeout, room: make(chan struct{}, MaxConnections)}
}

// WithTimeout gives a client of the same daemon with another timeout, and connections of its own.
func (c *Client) WithTimeout(timeout time.Duration) *Client {
	other := New(c.path)
	other.timeout = timeout
	return other
}

// Close ends all idle connections; those in use end with their calls.
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

// ---- asking until there is an answer, or the deadline has passed

// A request can be asked as often as need be: none has side effects.
type request struct {
	kind   byte
	append func(to []byte, id uint64) []byte
}

func empty(kind byte) request {
	return request{kind, func(to []byte, id uint64) []byte { return appendEmpty(to, kind, id) }}
}

// ask has decode look at the body of the reply. ctx has a deadline.
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
		// What ended one connection has most likely ended all.
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

// sleep says whether there is time left after it.
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
		// After a timeout, too: what comes late would pass for the next one's reply.
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
	lastID uint64 // begins where nobody can foresee: a reply to another's request fits none of ours
}

// nextID gives 1 to 2^64 - 1: 0 is the connection's.
func (c *connection) nextID() uint64 {
	if c.lastID++; c.lastID == 0 {
		c.lastID = 1
	}
	return c.lastID
}

// What a daemon that is being restarted, or has much to do, gives for a while. AF_UNIX's connect(2)
// does not wait for room in a full backlog: it fails with EAGAIN.
func isPassing(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) ||
		errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.ECONNRESET)
}

func connect(path string) (*connection, *Error) {
	made, err := net.Dial("unix", path) // which does not wait
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
	// A context may be cancelled before its deadline, and then wakes whoever waits for the socket.
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
	// An error is no news: the reader sees the end, and perhaps why.
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

// read gives one frame. Nothing may follow it, since nothing more was asked.
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

// arrived reads what is there after the deadline. Read does not look then, but whoever was held up until
// it had passed (a host that slept) may have been answered in time.
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
		if count, err := syscall.Read(int(descriptor), b); err == nil { // which does not wait
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
	// Who poses as the daemon must not write lines into a log.
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
