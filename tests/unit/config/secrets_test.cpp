// Secrets in files: passwords, folders of peppers, secrets of JWTs; the errors and warnings about
// them.
#include "config/secrets.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config/options.h"
#include "tests/unit/support/helpers.h"

namespace latchkey {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::Pair;

const std::string kThirtyTwo(32, 's');

class SecretsTest : public testing::Test {
 protected:
  SecretsTest() {
    std::string name = (fs::temp_directory_path() / "latchkey_secrets_XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
    folder_ = name;
    unsetenv("CREDENTIALS_DIRECTORY");
  }
  ~SecretsTest() override {
    unsetenv("CREDENTIALS_DIRECTORY");
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }
  SecretsTest(const SecretsTest&) = delete;
  SecretsTest& operator=(const SecretsTest&) = delete;

  // A file that only its owner may read.
  std::string put(const std::string& name, std::string_view content, mode_t mode = 0600) {
    const fs::path path = folder_ / name;
    std::ofstream(path, std::ios::binary) << content;
    EXPECT_EQ(chmod(path.c_str(), mode), 0);
    return path.string();
  }
  std::string make_fifo(const std::string& name) {
    const fs::path path = folder_ / name;
    EXPECT_EQ(mkfifo(path.c_str(), 0600), 0);
    return path.string();
  }
  std::string make_folder(const std::string& name) {
    fs::create_directory(folder_ / name);
    return (folder_ / name).string();
  }

  Warn warn() {
    return [this](const std::string& sentence) { warnings_.push_back(sentence); };
  }
  // Versions and secrets, in order.
  using Peppers = std::vector<std::pair<std::string, std::string>>;
  Peppers peppers() { return peppers(folder_.string()); }
  Peppers peppers(const std::string& name) {
    Peppers list;
    for (const Pepper& pepper : read_peppers(name, warn())) {
      list.emplace_back(pepper.version, pepper.secret);
    }
    return list;
  }
  std::vector<std::string> versions() {
    std::vector<std::string> list;
    for (const auto& [version, secret] : peppers()) list.push_back(version);
    return list;
  }
  // The message of the ConfigError that `read` throws.
  template <typename Read>
  static std::string error_of(Read read) {
    try {
      (void)read();
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "(no error)";
  }
  std::string pepper_error() {
    return error_of([this] { return peppers(); });
  }
  std::string password_error(const std::string& path) {
    return error_of([&] { return read_password(path); });
  }
  std::string jwt_error(const std::string& path) {
    return error_of([&] { return read_jwt_secret(path, warn()); });
  }

  fs::path folder_;
  std::vector<std::string> warnings_;
};

// ---- passwords

TEST_F(SecretsTest, ReadsTheFirstLineOfAPasswordFile) {
  const std::pair<std::string, std::string> cases[] = {
      {"secret", "secret"},
      {"secret\n", "secret"},
      {"secret\r\n", "secret"},
      {"secret\nsecond line\n", "secret"},
      {"secret\r\nsecond line", "secret"},
      {" two words ", " two words "},
      {"s\xc3\xa9"
       "cret\n",
       "s\xc3\xa9"
       "cret"},
      {std::string(4096, 'p'), std::string(4096, 'p')},
      {std::string(4095, 'p') + "\n", std::string(4095, 'p')},
  };
  for (const auto& [content, password] : cases) {
    EXPECT_EQ(read_password(put("pgpass", content)), password) << content.substr(0, 20);
  }
}

TEST_F(SecretsTest, RefusesAPasswordFileWithoutAPassword) {
  for (const char* content : {"", "\n", "\r\n", "\nsecond line\n"}) {
    const std::string path = put("pgpass", content);
    EXPECT_THAT(password_error(path), AllOf(HasSubstr(path), HasSubstr("is empty")));
  }
}

TEST_F(SecretsTest, WarnsOfAPasswordThatEveryUserMayRead) {
  warn_of_readers(put("pgpass", "secret", 0640), warn());
  EXPECT_THAT(warnings_, IsEmpty());
  const std::string path = put("pgpass", "secret", 0644);
  warn_of_readers(path, warn());
  EXPECT_THAT(warnings_, ElementsAre(AllOf(HasSubstr(path), HasSubstr("chmod o="))));
  warn_of_readers((folder_ / "missing").string(), warn());
  EXPECT_EQ(warnings_.size(), 1U) << "read_password() tells that it is missing";
}

// ---- files of any kind

class SecretsOfAnyKind : public SecretsTest {
 protected:
  // The errors of both readers of single files.
  std::vector<std::string> errors(const std::string& path) {
    return {password_error(path), jwt_error(path)};
  }
};

TEST_F(SecretsOfAnyKind, AreFilesThatExist) {
  for (const std::string& error : errors((folder_ / "missing").string())) {
    EXPECT_THAT(error, AllOf(HasSubstr("missing"), HasSubstr("No such file")));
  }
}

TEST_F(SecretsOfAnyKind, AreNeverWaitedFor) {
  for (const std::string& path : {make_fifo("fifo.key"), make_folder("folder.key")}) {
    for (const std::string& error : errors(path)) {
      EXPECT_THAT(error, AllOf(HasSubstr(path), HasSubstr("no regular file")));
    }
  }
  EXPECT_THAT(pepper_error(), AllOf(HasSubstr("fifo.key"), HasSubstr("no regular file")));
  for (const std::string& error : errors("/dev/zero")) EXPECT_THAT(error, HasSubstr("no regular"));
}

TEST_F(SecretsOfAnyKind, HaveAtMost4096Bytes) {
  EXPECT_EQ(read_jwt_secret(put("s.key", std::string(4096, 's')), warn()).size(), 4096U);
  const std::string path = put("s.key", std::string(4097, 's'));
  for (const std::string& error : errors(path)) EXPECT_THAT(error, HasSubstr("longer than 4096"));
  EXPECT_THAT(pepper_error(), AllOf(HasSubstr(path), HasSubstr("longer than 4096")));
}

TEST_F(SecretsOfAnyKind, AppearInNoErrorAndNoWarning) {
  const std::string secret = "keep it inside";  // neither hex nor base64, and short
  for (const char* name : {"v1.hex", "v1.b64", "v1.key"}) {
    const std::string path = put(name, secret + "\n", 0644);
    std::vector<std::string> texts = errors(path);
    texts.push_back(pepper_error());
    texts.insert(texts.end(), warnings_.begin(), warnings_.end());
    for (const std::string& text : texts) EXPECT_THAT(text, Not(HasSubstr("keep it")));
    fs::remove(path);
  }
  EXPECT_THAT(warnings_, Not(IsEmpty()));
}

// ---- folders of peppers

TEST_F(SecretsTest, ReadsPeppersRawAndEncoded) {
  put("v1.key", std::string("raw\0\xff", 5) + kThirtyTwo);
  put("v2.hex", "00FFab" + std::string(64, '1') + "\n");
  put("v3.b64", "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHNlYw==\r\n");
  put("v4.b64", "-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_");  // base64url
  std::string url;
  for (int i = 0; i < 8; ++i) url += "\xfb\xff\xbf";
  EXPECT_THAT(peppers(),
              ElementsAre(Pair("v4.key", url), Pair("v3.key", "secret secret secret secret sec"),
                          Pair("v2.key", std::string("\0\xff\xab", 3) + std::string(32, '\x11')),
                          Pair("v1.key", std::string("raw\0\xff", 5) + kThirtyTwo)));
  EXPECT_THAT(warnings_, IsEmpty());
}

TEST_F(SecretsTest, PutsTheNewestPepperFirst) {
  for (const char* name : {"v9.key", "v10.hex", "v1.b64", "pepper_v2.key", "2026-11.key", "old.key",
                           "v007.key", "v99999999999999999999.key"}) {
    put(name, std::string(64, 'a'));
  }
  // By the number at the end; names without one, or with one that is too large, come last.
  EXPECT_THAT(versions(),
              ElementsAre("2026-11.key", "v10.key", "v9.key", "v007.key", "pepper_v2.key", "v1.key",
                          "v99999999999999999999.key", "old.key"));
}

TEST_F(SecretsTest, PutsPeppersInOneOrderWhateverTheFolder) {
  test::Random random;
  std::vector<std::string> names;
  for (int i = 0; i < 30; ++i) names.push_back("v" + std::to_string(i));
  std::vector<std::string> expected;
  for (int i = 29; i >= 0; --i) expected.push_back("v" + std::to_string(i) + ".key");
  for (std::size_t i = names.size(); i > 1; --i) std::swap(names[i - 1], names[random.below(i)]);
  constexpr const char* kEndings[] = {".key", ".hex", ".b64"};
  for (const std::string& name : names) {
    put(name + kEndings[random.below(3)], std::string(64, 'b'));
  }
  EXPECT_EQ(versions(), expected);
}

TEST_F(SecretsTest, RefusesTwoFilesOfOneVersion) {
  constexpr std::pair<const char*, const char*> kPairs[] = {
      {".key", ".hex"}, {".key", ".b64"}, {".hex", ".b64"}};
  for (const auto& [a, b] : kPairs) {
    for (const char* version : {"v1", "old", "2026-11"}) {
      // The same secret in both files makes no difference.
      const std::string first = put(std::string(version) + a, std::string(64, 'c'));
      const std::string second = put(std::string(version) + b, std::string(64, 'c'));
      for (const char* other : {"v0.key", "v1x.key", "v2.key", "older.key"}) put(other, kThirtyTwo);
      EXPECT_THAT(pepper_error(),
                  AllOf(HasSubstr("two files"), HasSubstr(std::string(version) + ".key")))
          << version << a << b;
      fs::remove(first);
      fs::remove(second);
    }
  }
}

TEST_F(SecretsTest, IgnoresDroppingsAndFolders) {
  put("v1.key", kThirtyTwo);
  for (const char* name : {".#v1.key", "._v1.key", ".v1.hex", "v1.key~", "#v1.key#", "v2.key.bak",
                           "v2.key.swp", "README", "key", ".key", "v3.KEY", "v4.pem"}) {
    put(name, "");
  }
  for (const char* name : {"v5.key", "v6.hex", "sub"}) make_folder(name);
  put("sub/v7.key", kThirtyTwo);
  fs::create_symlink("nowhere", folder_ / ".#v2.key");  // a lock of Emacs
  EXPECT_THAT(versions(), ElementsAre("v1.key"));
  EXPECT_THAT(warnings_, IsEmpty());
}

TEST_F(SecretsTest, RefusesAFolderWithoutPeppers) {
  put("README", "here be peppers");
  EXPECT_THAT(pepper_error(), AllOf(HasSubstr(folder_.string()), HasSubstr("*.key, *.hex or *.b64"),
                                    Not(HasSubstr("LoadCredential"))));
  const std::string missing = (folder_ / "missing").string();
  EXPECT_THAT(error_of([&] { return peppers(missing); }),
              AllOf(HasSubstr(missing), HasSubstr("No such file")));
  const std::string file = put("v1.key", kThirtyTwo);
  EXPECT_THAT(error_of([&] { return peppers(file); }), HasSubstr("Not a directory"));
}

TEST_F(SecretsTest, RefusesAPepperThatLeadsNowhere) {
  put("v1.key", kThirtyTwo);
  fs::create_symlink("nowhere", folder_ / "v2.key");
  EXPECT_THAT(pepper_error(), AllOf(HasSubstr("v2.key"), HasSubstr("No such file")));
}

TEST_F(SecretsTest, RefusesPeppersThatItCannotDecode) {
  const std::pair<const char*, const char*> cases[] = {
      {"v1.hex", "abc"},         // half a byte
      {"v1.hex", "0xabcd"},      //
      {"v1.hex", "ab cd"},       //
      {"v1.hex", "ab\ncd\n"},    // two lines
      {"v1.b64", "YWJj!"},       //
      {"v1.b64", "YWJj\nYWJj"},  // two lines
      {"v1.b64", "A"},           // six bits
  };
  for (const auto& [name, content] : cases) {
    const std::string path = put(name, content);
    const char* encoding = std::string_view(name).ends_with("hex") ? "valid hex" : "valid base64";
    EXPECT_THAT(pepper_error(), AllOf(HasSubstr(path), HasSubstr(encoding))) << content;
    fs::remove(path);
  }
}

TEST_F(SecretsTest, RefusesAnEmptyPepper) {
  const std::pair<const char*, const char*> cases[] = {
      {"v1.key", ""}, {"v1.hex", ""}, {"v1.hex", "\n"}, {"v1.b64", "\r\n"}};
  for (const auto& [name, content] : cases) {
    const std::string path = put(name, content);
    put("v2.key", kThirtyTwo);
    EXPECT_THAT(pepper_error(), AllOf(HasSubstr(path), HasSubstr("is empty")));
    fs::remove(path);
  }
}

TEST_F(SecretsTest, WarnsOfPeppersThatEveryUserMayRead) {
  const std::string path = put("v1.key", kThirtyTwo, 0604);
  put("v2.key", kThirtyTwo, 0660);
  EXPECT_EQ(peppers().size(), 2U);
  EXPECT_THAT(warnings_, ElementsAre(AllOf(HasSubstr(path), HasSubstr("chmod o= " + path))));
}

TEST_F(SecretsTest, WarnsOfShortPeppers) {
  put("v16.key", std::string(16, 'p'));
  put("v17.hex", std::string(32, '1'));
  EXPECT_EQ(peppers().size(), 2U);
  EXPECT_THAT(warnings_, IsEmpty()) << "16 bytes, however they are written";
  const std::string raw = put("v2.key", std::string(15, 'p'));
  const std::string hex = put("v1.hex", std::string(30, '1'));
  EXPECT_EQ(peppers().size(), 4U);
  EXPECT_THAT(warnings_, ElementsAre(AllOf(HasSubstr(raw), HasSubstr("only 15 bytes")),
                                     AllOf(HasSubstr(hex), HasSubstr("only 15 bytes"))));
}

TEST_F(SecretsTest, WarnsOfALineBreakThatIsPartOfAPepper) {
  const std::string path = put("v1.key", kThirtyTwo + "\n");
  put("v2.hex", std::string(64, '1') + "\n");
  put("v3.b64", std::string(44, 'A') + "\n");
  EXPECT_THAT(peppers(), testing::Contains(Pair("v1.key", kThirtyTwo + "\n")))
      << "raw bytes are never changed";
  EXPECT_THAT(warnings_, ElementsAre(AllOf(HasSubstr(path), HasSubstr("line break"))));
}

// ---- secrets of JWTs

TEST_F(SecretsTest, ReadsSecretsOfJwtsRawAndEncoded) {
  EXPECT_EQ(read_jwt_secret(put("s", kThirtyTwo), warn()), kThirtyTwo);
  EXPECT_EQ(read_jwt_secret(put("s.txt", kThirtyTwo), warn()), kThirtyTwo);
  EXPECT_EQ(read_jwt_secret(put("s.hex", std::string(64, '1') + "\n"), warn()),
            std::string(32, '\x11'));
  EXPECT_EQ(read_jwt_secret(put("s.b64", std::string(43, 'A')), warn()), std::string(32, '\0'));
  EXPECT_THAT(warnings_, IsEmpty());
}

TEST_F(SecretsTest, RefusesSecretsOfJwtsThatAreTooShort) {
  const std::pair<const char*, std::string> cases[] = {
      {"s.key", std::string(31, 's')},
      {"s.key", ""},
      {"s.hex", std::string(62, '1')},  // the length after decoding counts
      {"s.hex", "\n"},
      {"s.b64", std::string(40, 'A')},
  };
  for (const auto& [name, content] : cases) {
    const std::string path = put(name, content);
    EXPECT_THAT(jwt_error(path), AllOf(HasSubstr(path), HasSubstr("at least 32"))) << content;
  }
  EXPECT_THAT(jwt_error(put("s.hex", std::string(65, '1'))), HasSubstr("valid hex"));
}

TEST_F(SecretsTest, WarnsOfReadersAndLineBreaksOfAJwtSecret) {
  const std::string path = put("s", kThirtyTwo + "\n", 0644);
  EXPECT_EQ(read_jwt_secret(path, warn()), kThirtyTwo + "\n");
  EXPECT_THAT(warnings_, ElementsAre(AllOf(HasSubstr(path), HasSubstr("chmod o=")),
                                     AllOf(HasSubstr(path), HasSubstr("line break"))));
}

// ---- $CREDENTIALS_DIRECTORY

TEST_F(SecretsTest, FindsRelativeNamesAmongTheCredentials) {
  put("pgpass", "secret\n");
  put("jwt", kThirtyTwo, 0644);
  setenv("CREDENTIALS_DIRECTORY", folder_.c_str(), 1);
  EXPECT_EQ(read_password("pgpass"), "secret");
  EXPECT_EQ(read_jwt_secret("jwt", warn()), kThirtyTwo);
  warn_of_readers("jwt", warn());
  EXPECT_THAT(warnings_, ElementsAre(HasSubstr((folder_ / "jwt").string()),
                                     HasSubstr((folder_ / "jwt").string())));
  EXPECT_EQ(read_password((folder_ / "pgpass").string()), "secret") << "absolute ones as they are";
}

TEST_F(SecretsTest, RefusesRelativeNamesWithoutCredentials) {
  const std::string errors[] = {password_error("pgpass"), jwt_error("jwt"),
                                error_of([&] { return peppers("peppers"); })};
  for (const std::string& error : errors) {
    EXPECT_THAT(error, AllOf(HasSubstr("CREDENTIALS_DIRECTORY"), HasSubstr("LoadCredential=")));
  }
  EXPECT_THAT(errors[0], HasSubstr("password_file \"pgpass\""));
  EXPECT_THAT(errors[1], HasSubstr("jwt_secret_file \"jwt\""));
}

// systemd.exec(5): LoadCredential=NAME:FOLDER gives each FILE of the folder the name NAME_FILE.
TEST_F(SecretsTest, FindsThePeppersOfAFolderThatIsACredential) {
  setenv("CREDENTIALS_DIRECTORY", folder_.c_str(), 1);
  put("pgpass", "secret");
  put("v9.key", kThirtyTwo);
  put("other_v8.key", kThirtyTwo);
  EXPECT_THAT(error_of([&] { return peppers("mine"); }),
              AllOf(HasSubstr("mine_*.key"), HasSubstr("LoadCredential=mine:")));
  put("mine_v1.key", kThirtyTwo);
  put("mine_v2.hex", std::string(64, '1'));
  put("mine_.#v3.key", "");
  put("mine_._v4.key", "");
  put("mine_.key", "");
  EXPECT_THAT(peppers("mine"),
              ElementsAre(Pair("v2.key", std::string(32, '\x11')), Pair("v1.key", kThirtyTwo)));
  EXPECT_THAT(warnings_, IsEmpty());
}

}  // namespace
}  // namespace latchkey
