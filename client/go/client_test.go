package latchkey

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// serve starts a server that gives each request the same kind of reply, or none.
func serve(t *testing.T, reply func(id uint64) []byte) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				head := make([]byte, headerBytes)
				for {
					if _, err := io.ReadFull(conn, head); err != nil {
						return
					}
					body := int64(binary.LittleEndian.Uint32(head[4:])) - headerBytes
					if _, err := io.CopyN(io.Discard, conn, body); err != nil {
						return
					}
					conn.Write(reply(binary.LittleEndian.Uint64(head[8:])))
				}
			}()
		}
	}()
	return path
}

func valid(id uint64) []byte {
	return finish(append(appendHeader(nil, typeVerified, id), 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0))
}

func silence(uint64) []byte { return nil }

func TestGoroutinesShareAClient(t *testing.T) {
	client := New(serve(t, valid)).WithTimeout(time.Minute)
	defer client.Close()
	var all sync.WaitGroup
	for i := 0; i < 4*MaxConnections; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			for j := 0; j < 20; j++ {
				if answer, err := client.Verify(context.Background(), "key", nil); err != nil || !answer.Valid() {
					t.Error(answer, err)
				}
			}
		}()
	}
	all.Wait()
	if len(client.idle) > MaxConnections {
		t.Errorf("%d connections", len(client.idle))
	}
}

func TestTheSoonerDeadlineCounts(t *testing.T) {
	path := serve(t, silence)
	for _, timeouts := range [][2]time.Duration{{50 * time.Millisecond, time.Hour}, {time.Hour, 50 * time.Millisecond}} {
		client := New(path).WithTimeout(timeouts[0])
		ctx, cancel := context.WithTimeout(context.Background(), timeouts[1])
		_, err := client.Verify(ctx, "key", nil)
		cancel()
		var failure *Error
		if !errors.As(err, &failure) || failure.Failure != FailedTimeout || !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	}
}

func TestCancelEndsACall(t *testing.T) {
	for name, path := range map[string]string{
		"waiting for a reply":      serve(t, silence),
		"waiting for a connection": filepath.Join(t.TempDir(), "nobody"),
	} {
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(20*time.Millisecond, cancel)
		_, err := New(path).WithTimeout(time.Hour).Verify(ctx, "key", nil)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAClosedClientSaysSo(t *testing.T) {
	client := New(serve(t, valid))
	if _, err := client.Verify(context.Background(), "key", nil); err != nil {
		t.Fatal(err)
	}
	client.Close()
	if _, err := client.Verify(context.Background(), "key", nil); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Error(err)
	}
}

func TestNoErrorHoldsTheKey(t *testing.T) {
	client := New(filepath.Join(t.TempDir(), "nobody")).WithTimeout(10 * time.Millisecond)
	_, err := client.Verify(context.Background(), "sk_secret", nil)
	if err == nil || strings.Contains(err.Error(), "sk_secret") {
		t.Error(err)
	}
}

func TestNothingIsNoYes(t *testing.T) {
	var none *Answer
	if none.Valid() || (&Answer{}).Valid() || (&Answer{Verdict: Unknown}).Valid() || none.HasScope("") {
		t.Error("a yes")
	}
	var answer Answer
	if err := json.Unmarshal([]byte("{}"), &answer); err != nil || answer.Valid() || answer.Verdict == Valid {
		t.Error("a yes", err)
	}
}

func TestVerdictsHaveTheNumbersOfTheProtocol(t *testing.T) {
	named := []Verdict{Valid, Unknown, Malformed, Revoked, Disabled, Deleted, Expired, NotYetValid,
		InsufficientScope, Forbidden, Unavailable}
	names := []string{"valid", "unknown", "malformed", "revoked", "disabled", "deleted", "expired",
		"not_yet_valid", "insufficient_scope", "forbidden", "unavailable"}
	for number := 0; number <= 255; number++ {
		answers, err := decodeVerified([]byte{1, 0, 0, 0, byte(number), 1, 0, 0, 0, 0, 0, 0})
		if err != nil {
			t.Fatal(err)
		}
		verdict, name := Unavailable, "unavailable" // unknown to this client
		if number < len(named) {
			verdict, name = named[number], names[number]
		}
		if got := answers[0]; got.Verdict != verdict || got.Verdict.String() != name || got.Valid() != (number == 0) {
			t.Errorf("%d: %v", number, got.Verdict)
		}
	}
	if name := Verdict(0).String(); name != "none" {
		t.Error(name)
	}
	if name := (Unavailable + 1).String(); name != "unknown_verdict" {
		t.Error(name)
	}
}

func TestScopesAreSplitAtOneSpace(t *testing.T) {
	scope, none := "read\u00a0admin a\u2003b", ""
	answer := &Answer{Scope: &scope}
	if answer.HasScope("admin") || answer.HasScope("b") || !answer.HasScope("read\u00a0admin") {
		t.Errorf("%q", answer.Scopes())
	}
	if scopes := (&Answer{Scope: &none}).Scopes(); len(scopes) != 0 {
		t.Errorf("%q", scopes)
	}
}
