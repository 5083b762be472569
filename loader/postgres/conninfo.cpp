#include "loader/postgres/conninfo.h"

#include "loader/postgres/server_message.h"

namespace latchkey {

Conninfo::Conninfo(const std::string& text, const LibpqConninfo& libpq)
    : options_(nullptr, libpq.free) {
  char* message = nullptr;
  options_.reset(libpq.parse(text.c_str(), &message));
  if (message == nullptr) return;
  problem_ = one_line(message);
  libpq.free_message(message);
}

ConninfoFacts Conninfo::facts() const {
  ConninfoFacts facts;
  facts.user = option("user");
  facts.has_password = option("password").has_value();
  if (options_ == nullptr) {
    facts.problem = problem_.empty() ? "libpq cannot read it" : problem_;
    return facts;
  }
  // libpq reads the port only when it connects, and then prints it: in a URI with an unescaped
  // password the port contains a part of the password.
  const auto port = option("port");
  if (port && port->find_first_not_of("0123456789,") != port->npos) {
    facts.problem = "its port is no number. (A password does not belong into a URI.)";
  }
  return facts;
}

std::map<std::string, std::string> Conninfo::options() const {
  std::map<std::string, std::string> options;
  for (const PQconninfoOption* o = options_.get(); o != nullptr && o->keyword != nullptr; ++o) {
    if (o->val != nullptr) options.emplace(o->keyword, o->val);
  }
  return options;
}

std::optional<std::string> Conninfo::option(std::string_view keyword) const {
  for (const PQconninfoOption* o = options_.get(); o != nullptr && o->keyword != nullptr; ++o) {
    if (o->keyword == keyword && o->val != nullptr) return o->val;
  }
  return std::nullopt;
}

}  // namespace latchkey
