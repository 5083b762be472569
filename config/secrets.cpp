#include "config/secrets.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "base/encoding.h"
#include "config/options.h"
#include "keys/jwt.h"

namespace latchkey {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kSecretBytesMax = 4096;
// Shorter HMAC keys weaken HMAC-SHA-256 (RFC 2104 section 3 asks for the length of the digest).
constexpr std::size_t kPepperBytesAdvised = 16;

std::string read_file(const fs::path& path) {
  const auto failed = [&path](const std::string& why) {
    return ConfigError("cannot read the secret " + path.string() + ": " + why + ".");
  };
  // O_NONBLOCK: open() must not wait for a writer if the file is a FIFO.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) throw failed(std::generic_category().message(errno));
  std::string content(kSecretBytesMax + 1, '\0');
  std::size_t size = 0;
  int error = 0;
  struct stat info {};
  const bool regular = fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
  while (regular && size < content.size()) {
    const ssize_t got = ::read(fd, content.data() + size, content.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) error = errno;
    if (got <= 0) break;
    size += static_cast<std::size_t>(got);
  }
  ::close(fd);
  if (!regular) throw failed("it is no regular file");
  if (error != 0) throw failed(std::generic_category().message(error));
  content.resize(size);
  if (content.size() > kSecretBytesMax) {
    throw ConfigError("the secret " + path.string() + " is longer than 4096 bytes.");
  }
  return content;
}

void warn_if_public(const fs::path& path, const Warn& warn) {
  struct stat info {};
  if (stat(path.c_str(), &info) == 0 && (info.st_mode & S_IROTH) != 0) {
    warn("everybody on this host may read the secret " + path.string() +
         ": chmod o= " + path.string());
  }
}

void trim_line_end(std::string& text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
}

// The path of the file that `setting` names.
fs::path credential(const std::string& name, const std::string& setting) {
  fs::path path(name);
  if (path.is_relative()) {
    const char* folder = std::getenv("CREDENTIALS_DIRECTORY");
    if (folder == nullptr) {
      throw ConfigError(setting + " \"" + name +
                        "\" is relative, and $CREDENTIALS_DIRECTORY is not set. Start the daemon"
                        " with systemd's LoadCredential=, or give the absolute path.");
    }
    path = fs::path(folder) / name;
  }
  return path;
}

// The number at the end, as in "v12", "pepper_v12" and "2026-11"; -1 if there is none.
long version_number(const std::string& stem) {
  const auto at = stem.find_last_not_of("0123456789") + 1;  // npos + 1 is 0
  long number = -1;
  const auto [end, error] = std::from_chars(stem.data() + at, stem.data() + stem.size(), number);
  return error == std::errc() && end == stem.data() + stem.size() ? number : -1;
}

std::string decoded(const fs::path& path, std::string content) {
  if (path.extension() != ".hex" && path.extension() != ".b64") return content;
  trim_line_end(content);
  auto secret = path.extension() == ".hex" ? decode_hex(content) : decode_base64(content);
  OPENSSL_cleanse(content.data(), content.size());
  if (!secret) {
    throw ConfigError("the secret " + path.string() + " is not valid " +
                      (path.extension() == ".hex" ? "hex" : "base64") + ".");
  }
  return std::move(*secret);
}

}  // namespace

std::string read_password(const std::string& name) {
  const fs::path path = credential(name, "password_file");
  std::string content = read_file(path);
  std::string password = content.substr(0, content.find('\n'));
  OPENSSL_cleanse(content.data(), content.size());
  trim_line_end(password);
  if (password.empty()) throw ConfigError("the password file " + path.string() + " is empty.");
  return password;
}

void warn_of_readers(const std::string& name, const Warn& warn) {
  warn_if_public(credential(name, "password_file"), warn);
}

std::vector<Pepper> read_peppers(const std::string& name, const Warn& warn) {
  // LoadCredential=NAME:FOLDER makes each FILE in the folder a credential NAME_FILE
  // (systemd.exec(5)).
  const bool is_credential = fs::path(name).is_relative();
  const fs::path folder =
      is_credential ? credential(name, "peppers").parent_path() : fs::path(name);
  const std::string prefix = is_credential ? name + "_" : "";
  std::error_code error;
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const auto ending = entry.path().extension();
    const std::string file = entry.path().filename().string();
    if (!file.starts_with(prefix)) continue;
    // Skips folders, and files that editors and systems leave behind (".#v1.key", "._v1.key").
    std::error_code unknown;
    if (file.substr(prefix.size()).starts_with('.') || entry.is_directory(unknown)) continue;
    if (ending == ".key" || ending == ".hex" || ending == ".b64") files.push_back(entry.path());
  }
  if (error) {
    throw ConfigError("cannot read the folder of peppers " + folder.string() + ": " +
                      error.message() + ".");
  }
  if (files.empty()) {
    throw ConfigError("the folder of peppers " + folder.string() + " holds no " + prefix +
                      "*.key, *.hex or *.b64 file. Put one file a version there" +
                      (is_credential ? " by LoadCredential=" + name + ":/the/folder." : "."));
  }
  std::ranges::sort(files, [](const fs::path& a, const fs::path& b) {
    return std::pair(version_number(a.stem()), a.stem()) >
           std::pair(version_number(b.stem()), b.stem());
  });
  std::vector<Pepper> peppers;
  for (const fs::path& file : files) {
    warn_if_public(file, warn);
    Pepper pepper{file.stem().string().substr(prefix.size()) + ".key",
                  decoded(file, read_file(file))};
    if (pepper.secret.empty()) throw ConfigError("the pepper " + file.string() + " is empty.");
    if (pepper.secret.size() < kPepperBytesAdvised) {
      warn("the pepper " + file.string() + " has only " + std::to_string(pepper.secret.size()) +
           " bytes; 32 random bytes are advised");
    }
    if (pepper.secret.ends_with('\n')) {
      warn("the pepper " + file.string() +
           " ends with a line break, which counts as part of it; if the application's pepper does"
           " not, no key will match: write the file without it, or as .hex or .b64");
    }
    if (!peppers.empty() && peppers.back().version == pepper.version) {
      throw ConfigError("two files in " + folder.string() + " hold pepper version " +
                        pepper.version + ". Keep one.");
    }
    peppers.push_back(std::move(pepper));
  }
  return peppers;
}

std::string read_jwt_secret(const std::string& name, const Warn& warn) {
  const fs::path path = credential(name, "jwt_secret_file");
  std::string secret = decoded(path, read_file(path));
  warn_if_public(path, warn);
  const std::size_t size = secret.size();
  if (size < Hs256Key::kSecretBytesMin) {
    OPENSSL_cleanse(secret.data(), size);
    throw ConfigError(
        "the JWT secret " + path.string() + " has only " + std::to_string(size) +
        " bytes; HS256 needs at least 32 (RFC 7518 section 3.2). Whoever has one token"
        " could find a shorter one by trying, and make tokens of his own. Let the"
        " issuer sign with 32 random bytes or more.");
  }
  if (secret.back() == '\n') {
    warn("the JWT secret " + path.string() +
         " ends with a line break, which counts as part of it; if the issuer's secret does not, no"
         " token will match: write the file without it");
  }
  return secret;
}

}  // namespace latchkey
