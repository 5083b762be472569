package latchkey

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Tests with the frames of tests/vectors/wire.txt; the head of that file explains the format.

type field struct{ name, value string }

type vector struct {
	name, reader, err string
	frame             []byte
	meaning           []field
}

func (v *vector) all(name string) (values []string) {
	for _, f := range v.meaning {
		if f.name == name {
			values = append(values, unescaped(f.value))
		}
	}
	return values
}

func (v *vector) one(name string) string { return v.all(name)[0] }

func unescaped(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if strings.HasPrefix(text[i:], `\x`) {
			octet, _ := hex.DecodeString(text[i+2 : i+4])
			b.Write(octet)
			i += 3
		} else {
			b.WriteByte(text[i])
		}
	}
	return b.String()
}

func escaped(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if c := text[i]; c >= 0x20 && c <= 0x7e && c != '\\' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String()
}

func vectors(t *testing.T) (all []vector) {
	t.Helper()
	text, err := os.ReadFile("../../tests/vectors/wire.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range strings.Split(string(text), "\n\n") {
		var v vector
		for _, line := range strings.Split(block, "\n") {
			if line == "" || line[0] == '#' {
				continue
			}
			name, value, _ := strings.Cut(line, ":")
			value = strings.TrimPrefix(value, " ")
			switch {
			case name == "name":
				v.name = value
			case name == "reader":
				v.reader = value
			case name == "error":
				v.err = value
			case name == "direction":
			case name == "hex":
				octets, err := hex.DecodeString(strings.ReplaceAll(value, " ", ""))
				if err != nil {
					t.Fatal(err)
				}
				v.frame = append(v.frame, octets...)
			default:
				v.meaning = append(v.meaning, field{name, value})
			}
		}
		if v.name != "" {
			all = append(all, v)
		}
	}
	if len(all) < 60 {
		t.Fatalf("only %d vectors", len(all))
	}
	return all
}

func written(t *testing.T, v vector) []byte {
	id, _ := strconv.ParseUint(v.one("request_id"), 10, 64)
	kind := v.frame[1]
	switch kind {
	case typePing, typeStatus:
		return appendEmpty(nil, kind, id)
	case typeSync:
		ms, _ := strconv.Atoi(v.one("timeout_ms"))
		return appendSync(nil, id, time.Duration(ms)*time.Millisecond)
	}
	flags := strings.Join(v.all("flags"), "")
	q := Question{Source: v.one("source"), AllScopes: v.all("all_scope"), AnyScopes: v.all("any_scope"),
		OmitClaims: !strings.Contains(flags, "claims"), Metadata: strings.Contains(flags, "metadata")}
	if age := v.one("max_age_ms"); age != "any" {
		ms, _ := strconv.Atoi(age)
		maxAge := time.Duration(ms) * time.Millisecond
		q.MaxAge = &maxAge
	}
	asked, err := encodeTerms(&q)
	if err != nil {
		t.Fatal(err)
	}
	keys := v.all("key")
	if fit := asked.fitting(keys); fit != len(keys) {
		t.Fatalf("%d of %d keys fit", fit, len(keys))
	}
	return appendKeys(nil, kind, id, &asked, keys)
}

var kinds = map[byte]string{typeVerified: "verified", typePong: "pong", typeStatusReply: "status_reply",
	typeSynced: "synced", typeWhyReply: "why_reply", typeError: "error"}

func read(frame []byte) ([]field, error) {
	h, err := decodeHeader(frame)
	if err != nil {
		return nil, err
	}
	if h.length != len(frame) {
		return nil, nil // incomplete
	}
	body := frame[headerBytes:]
	meaning := []field{{"type", kinds[h.kind]}, {"request_id", strconv.FormatUint(h.id, 10)}}
	add := func(name, value string) { meaning = append(meaning, field{name, value}) }
	switch h.kind {
	case typeVerified:
		answers, err := decodeVerified(body)
		for _, a := range answers {
			age, fresh := "unknown", "old"
			if a.Age >= 0 {
				age = strconv.FormatInt(a.Age.Milliseconds(), 10)
			}
			if a.Fresh {
				fresh = "fresh"
			}
			add("answer", a.Verdict.String()+" "+fresh+" "+age)
			for _, claim := range []struct {
				name string
				text *string
			}{{"source", a.Source}, {"key_id", a.KeyID}, {"subject", a.Subject}, {"tenant", a.Tenant},
				{"scope", a.Scope}, {"expires", nil}, {"metadata", a.Metadata}} {
				if claim.text != nil {
					add(claim.name, escaped(*claim.text))
				} else if claim.name == "expires" && a.Expires != nil {
					add("expires", strconv.FormatInt(a.Expires.Unix(), 10))
				}
			}
		}
		return meaning, err
	case typeError:
		name, text, err := decodeError(body)
		add("code", name)
		add("text", escaped(text))
		return meaning, err
	case typeSynced:
		waited, err := decodeSynced(body)
		add("waited_us", strconv.FormatInt(waited.Microseconds(), 10))
		return meaning, err
	case typePong:
		return meaning, decodeEmpty(body)
	}
	text, err := decodeText(body)
	add("json", escaped(text))
	return meaning, err
}

func ofLength(frame []byte) []byte {
	copied := append([]byte(nil), frame...)
	binary.LittleEndian.PutUint32(copied[4:], uint32(len(copied)))
	return copied
}

func TestVectors(t *testing.T) {
	for _, v := range vectors(t) {
		v := v
		t.Run(v.name, func(t *testing.T) {
			switch {
			case v.err != "" && v.reader == "client":
				if _, err := read(v.frame); err != wireError(v.err) {
					t.Errorf("%v instead of %s", err, v.err)
				}
			case v.err != "":
				t.Skip("a client does not read it")
			case v.frame[1]&0x80 == 0:
				if frame := written(t, v); !reflect.DeepEqual(frame, v.frame) {
					t.Errorf("% x instead of\n% x", frame, v.frame)
				}
			default:
				if meaning, err := read(v.frame); err != nil || !reflect.DeepEqual(meaning, v.meaning) {
					t.Errorf("%v, %v instead of\n%v", meaning, err, v.meaning)
				}
				testCut(t, v)
			}
		})
	}
}

func testCut(t *testing.T, v vector) {
	if kind := v.frame[1]; kind == typeStatusReply || kind == typeWhyReply {
		return // their text ends with their frame
	}
	for length := headerBytes; length < len(v.frame); length++ {
		if _, err := read(ofLength(v.frame[:length])); err != wireError("truncated") {
			t.Errorf("%v after %d bytes", err, length)
		}
	}
	if _, err := read(ofLength(append(v.frame[:len(v.frame):len(v.frame)], 0))); err != wireError("trailing") {
		t.Errorf("%v with a byte more", err)
	}
}

func FuzzReply(f *testing.F) {
	f.Add([]byte{1, 0x81, 0, 0, 28, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1, 0, 0, 12, 0, 0, 0})
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) >= headerBytes {
			_, _ = read(frame)
		}
	})
}
