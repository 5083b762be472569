package latchkey

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
)

// The numbers of protocol/PROTOCOL.md.
const (
	typeVerify      = 0x01
	typePing        = 0x02
	typeStatus      = 0x03
	typeSync        = 0x04
	typeWhy         = 0x05
	typeVerified    = 0x81
	typePong        = 0x82
	typeStatusReply = 0x83
	typeSynced      = 0x84
	typeWhyReply    = 0x85
	typeError       = 0xff

	headerBytes     = 16
	questionBytes   = 12
	answerBytes     = 8
	requestBytesMax = 65536
	replyBytesMax   = 1050644
	batchKeysMax    = 256
	keyBytesMax     = 4096
	sourceBytesMax  = 63
	scopesMax       = 32
	scopeBytesMax   = 255
	syncTimeoutMax  = 60 * time.Second
	maxAgeAny       = 0xffffffff
	ageUnknown      = 0xffffffff
)

// A Verdict is the daemon's decision on a key. Only Valid is a yes.
type Verdict uint8

// The verdicts, explained in PROTOCOL.md. Each is its number there plus one.
const (
	_ Verdict = iota // the zero value, in an Answer without a daemon's verdict, is not a yes
	Valid
	Unknown
	Malformed
	Revoked
	Disabled
	Deleted
	Expired
	NotYetValid
	InsufficientScope
	Forbidden
	Unavailable
)

var verdictNames = [...]string{"none", "valid", "unknown", "malformed", "revoked", "disabled", "deleted",
	"expired", "not_yet_valid", "insufficient_scope", "forbidden", "unavailable"}

// String returns the verdict's name in PROTOCOL.md; "none" for the zero value, which is not a
// verdict.
func (v Verdict) String() string {
	if int(v) < len(verdictNames) {
		return verdictNames[v]
	}
	return "unknown_verdict"
}

var refusalNames = [...]string{"none", "bad_version", "bad_type", "bad_length", "bad_reserved",
	"bad_flags", "bad_count", "bad_source", "bad_scope", "truncated", "trailing", "bad_timeout",
	"unknown_source", "not_allowed", "timed_out", "overloaded", "stopping", "no_reasons",
	"operation_not_allowed"}

// A wireError names the protocol rule that the bytes violate.
type wireError string

func (e wireError) Error() string { return string(e) }

// ---- requests

// An encoded Question, without keys.
type terms struct {
	flags              uint16
	maxAge             uint32
	source             string
	allCount, anyCount int
	scopes             []byte
}

func encodeTerms(q *Question) (terms, error) {
	if q == nil {
		q = &Question{}
	}
	t := terms{maxAge: maxAgeAny, source: q.Source, allCount: len(q.AllScopes), anyCount: len(q.AnyScopes)}
	if !q.OmitClaims {
		t.flags |= 1
	}
	if q.Metadata {
		t.flags |= 2
	}
	if len(q.Source) > sourceBytesMax || !isSourceName(q.Source) {
		return t, errors.New("a source has at most 63 characters out of A-Z a-z 0-9 _ - .")
	}
	if q.MaxAge != nil {
		if *q.MaxAge < 0 {
			return t, errors.New("a maximum age is 0 or more")
		}
		// Rounded down: refusing slightly too early is safer than admitting too late.
		t.maxAge = uint32(math.Min(float64(q.MaxAge.Milliseconds()), maxAgeAny-1))
	}
	for _, scopes := range [][]string{q.AllScopes, q.AnyScopes} {
		if len(scopes) > scopesMax {
			return t, errors.New("more than 32 scopes in one list")
		}
		for _, scope := range scopes {
			if len(scope) == 0 || len(scope) > scopeBytesMax {
				return t, errors.New("a scope must have 1 to 255 bytes")
			}
			for i := 0; i < len(scope); i++ {
				if scope[i] <= 0x20 || scope[i] == 0x7f {
					return t, errors.New("a scope with a space or a control character")
				}
			}
			t.scopes = append(append(t.scopes, byte(len(scope))), scope...)
		}
	}
	return t, nil
}

func isSourceName(name string) bool {
	for i := 0; i < len(name); i++ {
		c := name[i]
		letter := c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
		if !letter && (c < '0' || c > '9') && c != '_' && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

// sent truncates a key over the limit: it is malformed, and one byte over the limit suffices.
func sent(key string) string {
	if len(key) > keyBytesMax {
		return key[:keyBytesMax+1]
	}
	return key
}

// fitting returns the number of keys that fit into one request with these terms; at least 1.
func (t *terms) fitting(keys []string) int {
	size := headerBytes + questionBytes + len(t.source) + len(t.scopes)
	for i, key := range keys {
		size += 2 + len(sent(key))
		if i == batchKeysMax || size > requestBytesMax {
			return i
		}
	}
	return len(keys)
}

func appendHeader(to []byte, kind byte, id uint64) []byte {
	to = append(to, 1, kind, 0, 0, 0, 0, 0, 0)
	return binary.LittleEndian.AppendUint64(to, id)
}

// finish writes the length of the frame into its header.
func finish(frame []byte) []byte {
	binary.LittleEndian.PutUint32(frame[4:], uint32(len(frame)))
	return frame
}

func appendEmpty(to []byte, kind byte, id uint64) []byte {
	return finish(appendHeader(to, kind, id))
}

func appendSync(to []byte, id uint64, timeout time.Duration) []byte {
	to = appendHeader(to, typeSync, id)
	return finish(binary.LittleEndian.AppendUint32(to, uint32(timeout.Milliseconds())))
}

// appendKeys appends a verify or why request for keys that fit.
func appendKeys(to []byte, kind byte, id uint64, t *terms, keys []string) []byte {
	flags := t.flags
	if kind == typeWhy {
		flags = 0
	}
	to = appendHeader(to, kind, id)
	to = binary.LittleEndian.AppendUint16(to, flags)
	to = append(to, byte(len(t.source)), byte(t.allCount), byte(t.anyCount), 0)
	to = binary.LittleEndian.AppendUint16(to, uint16(len(keys)))
	to = binary.LittleEndian.AppendUint32(to, t.maxAge)
	to = append(to, t.source...)
	to = append(to, t.scopes...)
	for _, key := range keys {
		key = sent(key)
		to = binary.LittleEndian.AppendUint16(to, uint16(len(key)))
		to = append(to, key...)
	}
	return finish(to)
}

// ---- replies

type header struct {
	kind   byte
	length int
	id     uint64
}

// decodeHeader reads headerBytes bytes.
func decodeHeader(b []byte) (header, error) {
	length := binary.LittleEndian.Uint32(b[4:])
	h := header{b[1], int(length), binary.LittleEndian.Uint64(b[8:])}
	switch {
	case b[0] != 1:
		return h, wireError("bad_version")
	case b[2] != 0 || b[3] != 0:
		return h, wireError("bad_reserved")
	case length < headerBytes || length > replyBytesMax:
		return h, wireError("bad_length")
	case h.kind < typeVerified || h.kind > typeWhyReply && h.kind != typeError:
		return h, wireError("bad_type")
	}
	return h, nil
}

func decodeVerified(b []byte) ([]Answer, error) {
	if len(b) < 4 {
		return nil, wireError("truncated")
	}
	count := int(binary.LittleEndian.Uint16(b))
	if b[2] != 0 || b[3] != 0 {
		return nil, wireError("bad_reserved")
	}
	if count > batchKeysMax {
		return nil, wireError("bad_count")
	}
	b = b[4:]
	answers := make([]Answer, count)
	for i := range answers {
		if len(b) < answerBytes {
			return nil, wireError("truncated")
		}
		verdict, flags := b[0], b[1]
		claims, age := int(binary.LittleEndian.Uint16(b[2:])), binary.LittleEndian.Uint32(b[4:])
		b = b[answerBytes:]
		if len(b) < claims {
			return nil, wireError("truncated")
		}
		answers[i] = Answer{Verdict: Valid + Verdict(verdict), Fresh: flags == 1, Age: -1}
		if age != ageUnknown {
			answers[i].Age = time.Duration(age) * time.Millisecond
		}
		if err := decodeClaims(b[:claims], &answers[i]); err != nil {
			return nil, err
		}
		if int(verdict) > int(Unavailable-Valid) || flags > 1 {
			// A newer daemon's verdict or flag has an unknown meaning: this key gets no answer.
			answers[i] = Answer{Verdict: Unavailable, Age: -1}
		}
		b = b[claims:]
	}
	if len(b) != 0 {
		return nil, wireError("trailing")
	}
	return answers, nil
}

func decodeClaims(b []byte, answer *Answer) error {
	for len(b) != 0 {
		if len(b) < 3 {
			return wireError("truncated")
		}
		tag, length := b[0], int(binary.LittleEndian.Uint16(b[1:]))
		b = b[3:]
		if len(b) < length {
			return wireError("truncated")
		}
		if err := decodeClaim(tag, b[:length], answer); err != nil {
			return err
		}
		b = b[length:]
	}
	return nil
}

func decodeClaim(tag byte, value []byte, answer *Answer) error {
	texts := [...]**string{1: &answer.Source, 2: &answer.KeyID, 3: &answer.Subject, 4: &answer.Tenant,
		5: &answer.Scope, 7: &answer.Metadata}
	switch {
	case tag == 6:
		if len(value) != 8 {
			return wireError("bad_length")
		}
		expires := time.Unix(int64(binary.LittleEndian.Uint64(value)), 0).UTC()
		answer.Expires = &expires
	case int(tag) < len(texts) && texts[tag] != nil:
		text, err := decodeText(value)
		if err != nil {
			return err
		}
		*texts[tag] = &text
	}
	// Unknown tags are claims of a newer daemon, and are skipped.
	return nil
}

func decodeText(b []byte) (string, error) {
	for _, c := range b {
		if c == 0 {
			return "", wireError("bad_length")
		}
	}
	return string(b), nil
}

func decodeEmpty(b []byte) error {
	if len(b) != 0 {
		return wireError("trailing")
	}
	return nil
}

func decodeSynced(b []byte) (time.Duration, error) {
	if len(b) < 8 {
		return 0, wireError("truncated")
	}
	if len(b) > 8 {
		return 0, wireError("trailing")
	}
	return time.Duration(binary.LittleEndian.Uint64(b)) * time.Microsecond, nil
}

func decodeError(b []byte) (name, text string, err error) {
	if len(b) < 4 {
		return "", "", wireError("truncated")
	}
	code, length := int(binary.LittleEndian.Uint16(b)), int(binary.LittleEndian.Uint16(b[2:]))
	if len(b)-4 < length {
		return "", "", wireError("truncated")
	}
	if text, err = decodeText(b[4 : 4+length]); err != nil {
		return "", "", err
	}
	if len(b)-4 > length {
		return "", "", wireError("trailing")
	}
	// A newer daemon may have more errors.
	name = fmt.Sprintf("unknown_refusal_%d", code)
	if code < len(refusalNames) {
		name = refusalNames[code]
	}
	return name, text, nil
}
