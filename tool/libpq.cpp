#include "tool/libpq.h"

#include <dlfcn.h>

#include "config/options.h"
#include "loader/postgres/conninfo.h"

namespace latchkey {
namespace {

// The version whose header this file includes. dlopen(3) searches the same paths as the dynamic
// linker.
constexpr const char* kLibrary = "libpq.so.5";

template <typename Function>
Function function_of(void* library, const char* name) {
  void* const found = library == nullptr ? nullptr : ::dlsym(library, name);
  if (found != nullptr) return reinterpret_cast<Function>(found);
  throw ConfigError(std::string(kLibrary) +
                    " cannot be loaded, without which `conninfo` cannot be read. Install the"
                    " package libpq5.");
}

LibpqConninfo load() {
  // Never closed: the libraries that it loads (OpenSSL among others) clean up at the program's end.
  void* const library = ::dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  return {.parse = function_of<decltype(&PQconninfoParse)>(library, "PQconninfoParse"),
          .free = function_of<decltype(&PQconninfoFree)>(library, "PQconninfoFree"),
          .free_message = function_of<decltype(&PQfreemem)>(library, "PQfreemem")};
}

}  // namespace

ConninfoFacts read_conninfo(const std::string& conninfo) {
  static const LibpqConninfo libpq = load();
  return Conninfo(conninfo, libpq).facts();
}

}  // namespace latchkey
