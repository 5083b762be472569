// Requests for metrics and health, as text, and their responses.
#include "daemon/http/http_answer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/asio/buffer.hpp>
#include <boost/beast/http/write.hpp>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "tests/unit/support/helpers.h"

namespace latchkey {
namespace {

namespace beast = boost::beast;
namespace http = beast::http;
using http::field;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

class HttpAnswer : public testing::Test {
 protected:
  // The error of a head that the parser refuses; the response to others.
  beast::error_code parse(const std::string& head, HttpParser& parser) {
    beast::error_code error;
    parser.put(boost::asio::buffer(head), error);
    return error;
  }
  HttpResponse ask(const std::string& head) {
    HttpParser parser;
    const beast::error_code error = parse(head, parser);
    EXPECT_FALSE(error) << error.message() << " in " << head;
    return http_answer(parser, hooks_);
  }
  // A request of HTTP/1.1 with a Host.
  HttpResponse request(const std::string& method, const std::string& target,
                       const std::string& host = "localhost") {
    return ask(method + " " + target + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n");
  }
  HttpResponse get(const std::string& target) { return request("GET", target); }
  // Of GET /metrics on a loopback port.
  unsigned status_of_host(const std::string& host) {
    hooks_.loopback_only = true;
    return request("GET", "/metrics", host).result_int();
  }

  static std::string text_of(const HttpResponse& response) {
    std::ostringstream text;
    text << response;
    return text.str();
  }

  // The names of the hooks that were called.
  std::vector<std::string> called_;
  std::vector<std::string> stuck_, unready_, remarks_;
  HttpHooks hooks_{.metrics =
                       [this] {
                         called_.emplace_back("metrics");
                         return std::string("some_metric 1\n");
                       },
                   .stuck =
                       [this] {
                         called_.emplace_back("stuck");
                         return stuck_;
                       },
                   .unready =
                       [this] {
                         called_.emplace_back("unready");
                         return unready_;
                       },
                   .remarks =
                       [this] {
                         called_.emplace_back("remarks");
                         return remarks_;
                       },
                   .loopback_only = false};
};

// ---- paths

TEST_F(HttpAnswer, HasAPageForEachPath) {
  const HttpResponse metrics = get("/metrics");
  EXPECT_EQ(metrics.result_int(), 200U);
  EXPECT_EQ(metrics.body(), "some_metric 1\n");
  EXPECT_EQ(metrics[field::content_type], "text/plain; version=0.0.4; charset=utf-8");
  EXPECT_THAT(called_, ElementsAre("metrics"));
  EXPECT_EQ(get("/livez").body(), "ok\n");
  EXPECT_EQ(get("/readyz").body(), "ok\n");
}

TEST_F(HttpAnswer, HasNoOtherPages) {
  for (const char* target : {"/", "/metrics/", "//metrics", "/Metrics", "/metricsx", "/metric",
                             "/%6detrics", "/livez/readyz", "*", "metrics", "/../metrics"}) {
    EXPECT_EQ(get(target).result_int(), 404U) << target;
  }
  EXPECT_THAT(called_, IsEmpty());
}

TEST_F(HttpAnswer, IgnoresQueries) {
  for (const char* target : {"/metrics?", "/metrics?name[]=a&b=c", "/metrics?/livez", "/metrics??",
                             "http://localhost/metrics?x"}) {
    EXPECT_EQ(get(target).body(), "some_metric 1\n") << target;
  }
  EXPECT_EQ(get("/?/metrics").result_int(), 404U);
  EXPECT_EQ(get("?/metrics").result_int(), 404U);
}

TEST_F(HttpAnswer, TellsCachesToKeepNothing) {
  for (const char* target : {"/metrics", "/livez", "/readyz", "/other"}) {
    const HttpResponse response = get(target);
    EXPECT_EQ(response[field::cache_control], "no-store") << target;
    EXPECT_THAT(std::string(response[field::server]), testing::StartsWith("latchkeyd/")) << target;
  }
}

// ---- methods

TEST_F(HttpAnswer, AnswersGetAndHeadOnly) {
  for (const char* method : {"POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT",
                             "PROPFIND", "get", "INVENTED"}) {
    for (const char* path : {"/metrics", "/livez", "/other"}) {
      const HttpResponse response = request(method, path);
      EXPECT_EQ(response.result_int(), 405U) << method << path;
      EXPECT_EQ(response[field::allow], "GET, HEAD") << method << path;
    }
  }
  EXPECT_THAT(called_, IsEmpty());
}

TEST_F(HttpAnswer, GivesHeadTheFieldsOfGetWithoutTheBody) {
  unready_ = {"a is unavailable"};
  for (const char* target : {"/metrics", "/livez", "/readyz", "/other"}) {
    const HttpResponse got = get(target), head = request("HEAD", target);
    EXPECT_EQ(head.result(), got.result()) << target;
    EXPECT_THAT(head.body(), IsEmpty()) << target;
    EXPECT_FALSE(got.body().empty()) << target;
    for (const field name : {field::content_type, field::content_length, field::cache_control}) {
      EXPECT_EQ(head[name], got[name]) << target << ": " << http::to_string(name);
    }
    EXPECT_EQ(got[field::content_length], std::to_string(got.body().size())) << target;
    EXPECT_THAT(text_of(head), testing::EndsWith("\r\n\r\n")) << target;
  }
}

TEST_F(HttpAnswer, RefusesBodiesAndEndsTheConnection) {
  for (const char* fields : {"Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n"}) {
    for (const char* method : {"GET", "HEAD", "POST"}) {
      HttpParser parser;
      const std::string head =
          std::string(method) + " /metrics HTTP/1.1\r\nHost: localhost\r\n" + fields + "\r\n";
      const beast::error_code error = parse(head, parser);
      // A body beyond the limit is already an error of the parser.
      const HttpResponse response = error ? http_refusal(error) : http_answer(parser, hooks_);
      EXPECT_TRUE(!error || is_http_error(error)) << method << fields;
      EXPECT_EQ(response.result_int(), 400U) << method << fields;
      EXPECT_FALSE(response.keep_alive()) << method << fields;
    }
  }
  EXPECT_THAT(called_, IsEmpty());
  EXPECT_EQ(ask("GET /metrics HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n").result_int(), 200U)
      << "an empty body is none";
}

// ---- health

TEST_F(HttpAnswer, TellsTheTroubles) {
  stuck_ = {"worker 1 does not answer", "the loader does not run"};
  HttpResponse response = get("/livez");
  EXPECT_EQ(response.result_int(), 503U);
  EXPECT_EQ(response.body(), "worker 1 does not answer\nthe loader does not run\n");
  response = get("/readyz");
  EXPECT_EQ(response.result_int(), 200U) << "readiness is another question";
  EXPECT_EQ(get("/metrics").result_int(), 200U) << "metrics are wanted most in trouble";
}

TEST_F(HttpAnswer, TellsRemarksOnReadinessOnly) {
  remarks_ = {"a is stale"};
  EXPECT_EQ(get("/readyz").result_int(), 200U);
  EXPECT_EQ(get("/readyz").body(), "ok\na is stale\n");
  EXPECT_EQ(get("/livez").body(), "ok\n");
  unready_ = {"b is unavailable"};
  EXPECT_EQ(get("/readyz").result_int(), 503U);
  EXPECT_EQ(get("/readyz").body(), "b is unavailable\na is stale\n");
}

TEST_F(HttpAnswer, MakesTextsOfTheHooksPrintable) {
  const std::string hostile = "evil \x1b[31m\r\nname\xff \xe2\x80\xae";
  stuck_ = unready_ = remarks_ = {hostile};
  for (const char* path : {"/livez", "/readyz"}) {
    const std::string body = get(path).body();
    EXPECT_EQ(std::ranges::count(body, '\n'), body.starts_with("evil") && path[1] == 'r' ? 2 : 1)
        << path;
    for (const char* part : {"\x1b", "\r", "\xff", "\xe2\x80\xae"}) {
      EXPECT_THAT(body, Not(HasSubstr(part))) << path;
    }
    EXPECT_THAT(body, HasSubstr("evil ?[31m??name? ?")) << path;
  }
}

TEST_F(HttpAnswer, PassesOnWhatTheHooksThrow) {
  hooks_.metrics = []() -> std::string { throw std::runtime_error("no memory"); };
  EXPECT_THROW((void)get("/metrics"), std::runtime_error);
  EXPECT_EQ(get("/livez").result_int(), 200U);
}

// ---- Host

TEST_F(HttpAnswer, WantsOneHost) {
  const struct {
    const char* head;
    unsigned status;
  } cases[] = {
      {"GET /metrics HTTP/1.1\r\n\r\n", 400},
      {"GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400},
      {"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: y\r\nhOST: evil.example\r\n\r\n", 400},
      {"GET /metrics HTTP/1.0\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400},
      {"GET http://localhost/metrics HTTP/1.1\r\n\r\n", 400},
      {"GET /metrics HTTP/1.0\r\n\r\n", 200},
      {"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n", 200},
      {"GET /metrics HTTP/1.1\r\nHost:\r\n\r\n", 200},
  };
  for (const auto& c : cases) EXPECT_EQ(ask(c.head).result_int(), c.status) << c.head;
  EXPECT_EQ(called_.size(), 3U);
}

TEST_F(HttpAnswer, AnswersAnyHostOnASocket) {
  for (const char* host : {"evil.example", "10.0.0.1", "localhost", ""}) {
    EXPECT_EQ(request("GET", "/metrics", host).result_int(), 200U) << host;
  }
}

TEST_F(HttpAnswer, AnswersLoopbackHostsOnAPort) {
  for (const char* host :
       {"localhost", "localhost:9090", "LOCALHOST", "LocalHost.:80", "127.0.0.1", "127.0.0.1:9090",
        "127.1.2.3", "127.255.255.255:1", "[::1]", "[::1]:9090", "[0:0:0:0:0:0:0:1]:9090"}) {
    EXPECT_EQ(status_of_host(host), 200U) << host;
  }
}

TEST_F(HttpAnswer, RefusesNamesThatWereTurnedToLoopback) {
  for (const char* host : {"",
                           "evil.example",
                           "evil.example:9090",
                           "localhost.evil.example",
                           "127.0.0.1.evil.example",
                           "localhost..",
                           "xlocalhost",
                           "localhosts",
                           "localhost evil",
                           "0.0.0.0",
                           "10.0.0.1",
                           "128.0.0.1",
                           "0177.0.0.1",
                           "2130706433",
                           "127.1",
                           "[::]",
                           "[::2]:1",
                           "[::1",
                           "::1",
                           "[]",
                           "[evil.example]",
                           "[localhost]",
                           "[127.0.0.1]",
                           "[::1].0.1",
                           "[::1]9090",
                           "[::1]:90x",
                           "localhost:9090]",
                           "localhost::1",
                           "127.0.0.1:80:80",
                           "user@127.0.0.1",
                           "127.0.0.1%00",
                           "127.0.0.1/"}) {
    EXPECT_EQ(status_of_host(host), 421U) << host;
  }
  EXPECT_THAT(called_, IsEmpty());
  hooks_.loopback_only = true;
  EXPECT_EQ(ask("GET /metrics HTTP/1.0\r\n\r\n").result_int(), 200U)
      << "browsers always send a Host";
}

TEST_F(HttpAnswer, RefusesForeignHostsBeforeItLooksAtAnythingElse) {
  hooks_.loopback_only = true;
  EXPECT_EQ(request("POST", "/metrics", "evil.example").result_int(), 421U);
  EXPECT_EQ(request("GET", "/other", "evil.example").result_int(), 421U);
}

// RFC 9112 section 3.2.2: the authority of an absolute target replaces Host.
TEST_F(HttpAnswer, TakesTheAuthorityOfAnAbsoluteTarget) {
  hooks_.loopback_only = true;
  const struct {
    const char* target;
    const char* host;
    unsigned status;
  } cases[] = {
      {"http://localhost/metrics", "localhost", 200},
      {"http://localhost/metrics", "evil.example", 200},
      {"HTTP://LOCALHOST:9090/metrics", "evil.example", 200},
      {"hTtP://[::1]:9090/metrics?x=y", "localhost", 200},
      {"http://evil.example/metrics", "localhost", 421},
      {"HTTP://evil.example/metrics", "localhost", 421},
      {"http://evil.example?x=http://localhost/metrics", "localhost", 421},
      {"http:///metrics", "localhost", 421},
      {"http://localhost", "localhost", 404},
      {"http://localhost?/metrics", "localhost", 404},
      {"http://localhost/Metrics", "localhost", 404},
      {"https://localhost/metrics", "localhost", 404},
      {"http:/metrics", "localhost", 404},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(request("GET", c.target, c.host).result_int(), c.status) << c.target << ' ' << c.host;
  }
}

TEST_F(HttpAnswer, SurvivesAnyHostAndTarget) {
  test::Random random;
  constexpr std::string_view kParts[] = {
      "[",     "]",    ":", "::1", ".",    "http",  "://", "/metrics", "?",  "localhost",
      "127.0", ".0.1", "@", "%00", "evil", "HTTP:", "/",   "9090",     "//", "#"};
  const auto text = [&] {
    std::string made;
    for (std::size_t i = random.below(6); i > 0; --i) made += kParts[random.below(20)];
    return made;
  };
  hooks_.loopback_only = true;
  for (int i = 0; i < 20'000; ++i) {
    const std::string target = "/" + text(), host = text();
    const std::string whole = random.below(2) == 0 ? target : "http://" + text();
    const HttpResponse response = request("GET", whole, host);
    if (response.result() != http::status::ok) continue;
    std::string authority = host;
    if (whole.starts_with("http")) authority = whole.substr(7, whole.find_first_of("/?", 7) - 7);
    const bool bracketed = authority.starts_with('[');
    const std::string name = bracketed ? authority.substr(1, authority.find(']') - 1)
                                       : authority.substr(0, authority.find(':'));
    const bool ipv4 =
        name.starts_with("127.") && name.find_first_not_of("0123456789.") == name.npos;
    EXPECT_TRUE(ipv4 || name == "localhost" || name == "localhost." || name == "::1" ||
                name.starts_with("::1%"))
        << whole << ' ' << host;
  }
}

// ---- connections

TEST_F(HttpAnswer, KeepsConnectionsAsTheCallerWants) {
  const struct {
    const char* version;
    const char* fields;
    bool keep;
  } cases[] = {
      {"1.1", "", true},
      {"1.1", "Connection: close\r\n", false},
      {"1.1", "Connection: Keep-Alive\r\n", true},
      {"1.0", "", false},
      {"1.0", "Connection: keep-alive\r\n", true},
  };
  for (const auto& c : cases) {
    for (const char* start : {"GET /metrics", "GET /livez", "GET /other", "POST /metrics"}) {
      const HttpResponse response = ask(std::string(start) + " HTTP/" + c.version +
                                        "\r\nHost: localhost\r\n" + c.fields + "\r\n");
      EXPECT_EQ(response.keep_alive(), c.keep) << start << c.version << c.fields;
      EXPECT_EQ(response.version(), c.version[2] == '1' ? 11U : 10U) << start;
    }
  }
}

// ---- requests that the parser refuses

TEST_F(HttpAnswer, RefusesWhatIsNoRequest) {
  for (const std::string& head :
       {std::string("\r\n\r\nGARBAGE\r\n\r\n"), std::string("GET\r\n\r\n"),
        std::string("GET /metrics HTTP/2.0\r\n\r\n"), std::string("GET /metrics\r\n\r\n"),
        std::string("GET /metrics HTTP/1.1\r\nHost localhost\r\n\r\n"),
        std::string("GET /\x01 HTTP/1.1\r\nHost: h\r\n\r\n"),
        std::string("\x16\x03\x01\x02\x00", 5),
        "GET /" + std::string(kHttpHeadBytesMax, 'a') + " HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nX: " + std::string(kHttpHeadBytesMax, 'a') + "\r\n\r\n"}) {
    HttpParser parser;
    const beast::error_code error = parse(head, parser);
    ASSERT_TRUE(error) << head.substr(0, 40);
    if (error == http::error::need_more) continue;  // would wait for the rest
    EXPECT_TRUE(is_http_error(error)) << head.substr(0, 40);
    const HttpResponse response = http_refusal(error);
    EXPECT_EQ(response.result_int(), 400U);
    EXPECT_FALSE(response.keep_alive());
    EXPECT_EQ(response.body(), error.message() + "\n");
  }
}

TEST_F(HttpAnswer, TellsRefusedRequestsFromFailedConnections) {
  EXPECT_TRUE(is_http_error(http::error::bad_target));
  EXPECT_TRUE(is_http_error(http::error::header_limit));
  EXPECT_FALSE(is_http_error(boost::asio::error::connection_reset));
  EXPECT_FALSE(is_http_error(boost::asio::error::eof));
  EXPECT_FALSE(is_http_error({}));
}

}  // namespace
}  // namespace latchkey
