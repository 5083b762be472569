// Secrets come from files, never from the configuration, arguments or the environment.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace latchkey {

// Takes what is odd about a secret, a sentence for the operator.
using Warn = std::function<void(const std::string& sentence)>;

// `path`, or if it is relative, the file of that name in $CREDENTIALS_DIRECTORY (systemd.exec(5),
// LoadCredential=). The first line, without its end. Throws ConfigError.
[[nodiscard]] std::string read_password(const std::string& path);
// Warns if anybody on the host may read it: asked once, while it is read again and again.
void warn_of_readers(const std::string& path, const Warn& warn);

struct Pepper {
  std::string version;  // as rows name it: <name>.key, whatever the file's own ending
  std::string secret;   // wiped by whoever is done with it
};

// `name` is a folder, or, relative, what LoadCredential= made of one in $CREDENTIALS_DIRECTORY.
// One file a version: NAME.key (raw bytes), NAME.hex or NAME.b64 (text), newest first (by the
// number at the name's end). Throws ConfigError; a folder without any pepper is an error.
[[nodiscard]] std::vector<Pepper> read_peppers(const std::string& name, const Warn& warn);

// A secret that JWTs are signed with: the file's bytes as they are, but NAME.hex and NAME.b64 hold
// text. `path` as for read_password(). Wiped by whoever is done with it. Throws ConfigError; one
// too short for HS256 is an error.
[[nodiscard]] std::string read_jwt_secret(const std::string& path, const Warn& warn);

}  // namespace latchkey
