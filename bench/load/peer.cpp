#include "bench/load/peer.h"

#include <openssl/sha.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <charconv>
#include <cstring>

#include "base/bytes.h"
#include "base/wire_names.h"
#include "bench/load/bare_server.h"
#include "tests/reference/client_codec.h"

namespace latchkey {
namespace {

std::string shown(Bytes bytes) {
  std::string text;
  for (const std::uint8_t byte : bytes.first(std::min<std::size_t>(bytes.size(), 80))) {
    constexpr std::string_view kDigits = "0123456789abcdef";
    if (byte >= 0x20 && byte < 0x7f) {
      text += static_cast<char>(byte);
    } else {
      text += "\\x";
      text += kDigits[byte >> 4];
      text += kDigits[byte & 15];
    }
  }
  return text;
}

[[noreturn]] void wrong(const BenchKey& key, const std::string& what) {
  throw WrongAnswer("wrong answer for " + std::string(key.known ? "known" : "unknown") + " key " +
                    std::string(key.text) + ": " + what);
}

void append(OutBuffer& out, std::string_view text) {
  std::memcpy(out.grow(text.size()), text.data(), text.size());
}

// ---- Latchkey

class LatchkeyPeer : public Peer {
 public:
  explicit LatchkeyPeer(const PeerOptions& options) : options_(options) {
    terms_.want_claims = options.claims;
  }
  // Requests for as many keys of the same lengths differ in their ids and keys only, so the last
  // request is kept, and changed where it differs.
  void encode(OutBuffer& out, std::span<const BenchKey> keys) override {
    if (!fits(keys)) make_template(keys);
    const std::size_t size = template_.size();
    std::uint8_t* request = out.grow(size);
    std::memcpy(request, template_.data(), size);
    store_le<std::uint64_t>(request + kIdAt, ++sent_);
    for (std::size_t i = 0; i < keys.size(); ++i) {
      std::memcpy(request + places_[i].at, keys[i].text.data(), places_[i].length);
    }
  }
  std::size_t judge(Bytes bytes, std::span<const BenchKey> keys) override {
    if (bytes.size() < LATCHKEY_HEADER_BYTES) return 0;
    const auto length = load_le<std::uint32_t>(bytes.data() + 4);
    if (length < LATCHKEY_HEADER_BYTES + LATCHKEY_VERIFIED_FIXED_BYTES ||
        length > LATCHKEY_REPLY_BYTES_MAX) {
      throw WrongAnswer("no frame: " + shown(bytes));
    }
    if (bytes.size() < length) return 0;
    const Bytes body = bytes.subspan(LATCHKEY_HEADER_BYTES, length - LATCHKEY_HEADER_BYTES);
    if (bytes[1] != LATCHKEY_VERIFIED ||
        load_le<std::uint64_t>(bytes.data() + kIdAt) != ++answered_ ||
        decode_verified(body, answers_) || answers_.size() != keys.size()) {
      throw WrongAnswer("another reply than was asked for: " + shown(bytes.first(length)));
    }
    for (std::size_t i = 0; i < keys.size(); ++i) {
      const BenchKey& key = keys[i];
      if (answers_[i].verdict != (key.known ? LATCHKEY_VALID : LATCHKEY_UNKNOWN)) {
        wrong(key, verdict_name(answers_[i].verdict));
      }
      if (key.known && options_.claims && options_.generated) check_id(answers_[i], key);
    }
    return length;
  }
  [[nodiscard]] std::size_t batch_max() const override { return LATCHKEY_BATCH_KEYS_MAX; }

 private:
  static constexpr std::size_t kIdAt = 8;  // of the request id in a header
  struct Place {
    std::size_t at, length;
  };

  [[nodiscard]] bool fits(std::span<const BenchKey> keys) const {
    if (places_.size() != keys.size()) return false;
    for (std::size_t i = 0; i < keys.size(); ++i) {
      if (places_[i].length != keys[i].text.size()) return false;
    }
    return true;
  }
  void make_template(std::span<const BenchKey> keys) {
    template_.clear();
    places_.clear();
    std::vector<std::string_view> texts;
    std::size_t at = verify_overhead(terms_);
    for (const BenchKey& key : keys) {
      texts.push_back(key.text);
      at += 2;  // the length
      places_.push_back({at, key.text.size()});
      at += key.text.size();
    }
    encode_verify(template_, 0, terms_, texts);
  }
  static void check_id(const DecodedAnswer& answer, const BenchKey& key) {
    const std::string_view text = answer.claims.key_id;
    std::uint64_t id = 0;
    const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), id);
    if (error == std::errc() && rest == text.data() + text.size() && id == key.index + 1) return;
    wrong(key, "it is said to be of row " + std::string(text));
  }

  const PeerOptions& options_;
  VerifyTerms terms_;
  OutBuffer template_;
  std::vector<Place> places_;  // of the keys in `template_`
  std::vector<DecodedAnswer> answers_;
  std::uint64_t sent_ = 0, answered_ = 0;
};

// ---- the lower bound: sends 64 bytes, receives the first half of them

class EchoPeer : public Peer {
 public:
  void encode(OutBuffer& out, std::span<const BenchKey> keys) override {
    std::uint8_t* bytes = out.grow(64);
    std::memset(bytes, 0, 64);
    std::memcpy(bytes, keys[0].text.data(), std::min<std::size_t>(keys[0].text.size(), 64));
  }
  std::size_t judge(Bytes bytes, std::span<const BenchKey> keys) override {
    if (bytes.size() < 32) return 0;
    const std::size_t length = std::min<std::size_t>(keys[0].text.size(), 32);
    if (std::memcmp(bytes.data(), keys[0].text.data(), length) != 0) {
      wrong(keys[0], shown(bytes.first(32)));
    }
    return 32;
  }
};

// ---- the lower bound with keys (bare_server.h)

class FloorPeer : public Peer {
 public:
  void encode(OutBuffer& out, std::span<const BenchKey> keys) override {
    const std::string_view text = keys[0].text.substr(0, sizeof(FloorRequest::key));
    FloorRequest request{++sent_, static_cast<std::uint8_t>(text.size()), {}};
    text.copy(request.key, text.size());
    std::memcpy(out.grow(sizeof request), &request, sizeof request);
  }
  std::size_t judge(Bytes bytes, std::span<const BenchKey> keys) override {
    FloorReply reply;
    if (bytes.size() < sizeof reply) return 0;
    std::memcpy(&reply, bytes.data(), sizeof reply);
    if (reply.id != ++answered_ || (reply.known != 0) != keys[0].known) {
      wrong(keys[0], shown(bytes.first(sizeof reply)));
    }
    return sizeof reply;
  }

 private:
  std::uint64_t sent_ = 0, answered_ = 0;
};

// ---- key-value stores: the reply is the length of a value, the value and a line end; or a miss

std::size_t judge_value(Bytes bytes, const BenchKey& key, std::string_view hit,
                        std::string_view miss) {
  const std::string_view text = as_text(bytes), wanted = key.known ? hit : miss;
  if (text.size() < wanted.size()) return 0;
  if (!text.starts_with(wanted)) wrong(key, shown(bytes));
  if (!key.known) return wanted.size();
  if (text.size() < wanted.size() + 66) return 0;
  const auto value = generated_value(key.index);
  if (std::memcmp(text.data() + wanted.size(), value.data(), value.size()) != 0) {
    wrong(key, shown(bytes));
  }
  return wanted.size() + 66;
}

// ---- Redis: GET (redis.io/docs/reference/protocol-spec)

class RedisPeer : public Peer {
 public:
  void encode(OutBuffer& out, std::span<const BenchKey> keys) override {
    append(out, "*2\r\n$3\r\nGET\r\n$");
    append(out, std::to_string(keys[0].text.size()));
    append(out, "\r\n");
    append(out, keys[0].text);
    append(out, "\r\n");
  }
  std::size_t judge(Bytes bytes, std::span<const BenchKey> keys) override {
    return judge_value(bytes, keys[0], "$64\r\n", "$-1\r\n");
  }
};

// ---- memcached: mg (its doc/protocol.txt, "Meta Get")

class MemcachedPeer : public Peer {
 public:
  void encode(OutBuffer& out, std::span<const BenchKey> keys) override {
    append(out, "mg ");
    append(out, keys[0].text);
    append(out, " v\r\n");
  }
  std::size_t judge(Bytes bytes, std::span<const BenchKey> keys) override {
    return judge_value(bytes, keys[0], "VA 64\r\n", "EN\r\n");
  }
};

// ---- PostgreSQL: a prepared SELECT by digest (PostgreSQL manual, 55.2 and 55.7)

class PostgresPeer : public Peer {
 public:
  explicit PostgresPeer(const PeerOptions& options) : options_(options) {}

  void greet(int socket) override {
    OutBuffer out;
    std::string start;
    const auto text = [&](std::string_view part) { start.append(part).push_back('\0'); };
    for (const auto& part :
         {std::string("user"), options_.user, std::string("database"), options_.database}) {
      text(part);
    }
    start.push_back('\0');
    number(out, static_cast<std::uint32_t>(8 + start.size()));
    number(out, 196608);  // version 3.0
    append(out, start);
    say(socket, out);
    until_ready(socket);
    out.clear();
    std::string parse;
    parse.append("k").push_back('\0');
    parse.append("SELECT id FROM bench_key WHERE digest = $1").push_back('\0');
    parse.append({'\0', '\1', '\0', '\0', '\0', '\x11'});  // one parameter, bytea (oid 17)
    message(out, 'P', parse);
    message(out, 'S', "");
    say(socket, out);
    until_ready(socket);
  }
  void encode(OutBuffer& out, std::span<const BenchKey> keys) override {
    std::string bind;
    bind.push_back('\0');  // the unnamed portal
    bind.append("k").push_back('\0');
    bind.append({'\0', '\1', '\0', '\1', '\0', '\1', '\0', '\0', '\0', '\x20'});
    std::array<unsigned char, 32> digest{};
    SHA256(reinterpret_cast<const unsigned char*>(keys[0].text.data()), keys[0].text.size(),
           digest.data());
    bind.append(reinterpret_cast<const char*>(digest.data()), digest.size());
    bind.append({'\0', '\1', '\0', '\0'});  // results as text
    message(out, 'B', bind);
    message(out, 'E', std::string("\0\0\0\0\0", 5));
    message(out, 'S', "");
  }
  std::size_t judge(Bytes bytes, std::span<const BenchKey> keys) override {
    std::size_t at = 0;
    bool found = false;
    while (bytes.size() >= at + 5) {
      const char type = static_cast<char>(bytes[at]);
      const std::size_t length = big_endian(bytes.data() + at + 1);
      if (bytes.size() < at + 1 + length) return 0;
      const Bytes body = bytes.subspan(at + 5, length - 4);
      at += 1 + length;
      if (type == 'E') throw WrongAnswer("PostgreSQL: " + shown(body));
      if (type == 'D') {
        found = true;
        const std::string id = std::to_string(keys[0].index + 1);
        if (body.size() < 6 || as_text(body.subspan(6)) != id) wrong(keys[0], shown(body));
      }
      if (type != 'Z') continue;
      if (found != keys[0].known) wrong(keys[0], found ? "a row" : "no row");
      return at;
    }
    return 0;
  }

 private:
  static std::uint32_t big_endian(const std::uint8_t* at) {
    return __builtin_bswap32(load_le<std::uint32_t>(at));
  }
  static void number(OutBuffer& out, std::uint32_t value) {
    store_le(out.grow(4), __builtin_bswap32(value));
  }
  static void message(OutBuffer& out, char type, std::string_view body) {
    *out.grow(1) = static_cast<std::uint8_t>(type);
    number(out, static_cast<std::uint32_t>(4 + body.size()));
    append(out, body);
  }
  static void say(int socket, OutBuffer& out) {
    if (send(socket, out.data(), out.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(out.size())) {
      throw std::runtime_error("PostgreSQL does not listen");
    }
  }
  // Reads up to ReadyForQuery, the last message of a reply.
  static void until_ready(int socket) {
    std::string got;
    for (;;) {
      std::size_t at = 0;
      while (got.size() >= at + 5) {
        const auto* bytes = reinterpret_cast<const std::uint8_t*>(got.data()) + at;
        const std::size_t length = big_endian(bytes + 1);
        if (got.size() < at + 1 + length) break;
        if (*bytes == 'E' || (*bytes == 'R' && big_endian(bytes + 5) != 0)) {
          throw std::runtime_error("PostgreSQL refuses: " + shown({bytes, length}));
        }
        if (*bytes == 'Z') return;
        at += 1 + length;
      }
      pollfd wait{socket, POLLIN, 0};
      std::array<char, 4096> some{};
      const ssize_t count =
          poll(&wait, 1, 5000) == 1 ? recv(socket, some.data(), some.size(), 0) : 0;
      if (count <= 0) throw std::runtime_error("PostgreSQL does not answer");
      got.append(some.data(), static_cast<std::size_t>(count));
    }
  }

  const PeerOptions& options_;
};

}  // namespace

std::unique_ptr<Peer> make_peer(const PeerOptions& options) {
  if (options.name == "latchkey") return std::make_unique<LatchkeyPeer>(options);
  if (options.name == "floor") return std::make_unique<FloorPeer>();
  if (options.name == "echo") return std::make_unique<EchoPeer>();
  if (options.name == "redis") return std::make_unique<RedisPeer>();
  if (options.name == "memcached") return std::make_unique<MemcachedPeer>();
  if (options.name == "postgres") return std::make_unique<PostgresPeer>(options);
  throw std::runtime_error("no such protocol: " + options.name +
                           ". Choose latchkey, echo, floor, redis, memcached or postgres.");
}

}  // namespace latchkey
