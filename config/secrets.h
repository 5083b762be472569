// Secrets come from files, never from the configuration, arguments or the environment.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace latchkey {

// Receives a warning about a secret: one sentence for the operator.
using Warn = std::function<void(const std::string& sentence)>;

// Reads the file at `path`; a relative path is a file in $CREDENTIALS_DIRECTORY (systemd.exec(5),
// LoadCredential=). Returns its first line without the line end. Throws ConfigError.
[[nodiscard]] std::string read_password(const std::string& path);
// Warns if every user of the host may read the file. A function of its own, because the password is
// read for each connection and the warning is given once.
void warn_of_readers(const std::string& path, const Warn& warn);

struct Pepper {
  std::string version;  // the name that rows use: <name>.key, for any file extension
  std::string secret;   // the owner wipes it after use
};

// `name` is the absolute path of a folder, or the name that LoadCredential= gave a folder in
// $CREDENTIALS_DIRECTORY. The folder holds one file per version: NAME.key (raw bytes), NAME.hex or
// NAME.b64 (text). Newest first, by the number at the name's end. Throws ConfigError; a folder
// without any pepper is an error.
[[nodiscard]] std::vector<Pepper> read_peppers(const std::string& name, const Warn& warn);

// Reads a secret that JWTs are signed with: the unchanged bytes of the file, or the decoded text of
// NAME.hex and NAME.b64. `path` as for read_password(). The caller wipes the secret after use.
// Throws ConfigError; a secret too short for HS256 is an error.
[[nodiscard]] std::string read_jwt_secret(const std::string& path, const Warn& warn);

}  // namespace latchkey
