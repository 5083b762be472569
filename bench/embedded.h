// Embedded databases, the alternative to a daemon. They have the interface that structures.h
// describes; each look-up is one read transaction for its batch. Nothing changes them here.
#pragma once

#include <lmdb.h>
#include <sqlite3.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>

#include "bench/structures.h"

namespace latchkey::bench {

// A file in the file system in memory; the destructor removes it.
class ScratchFile {
 public:
  ScratchFile() {
    const int made = ::mkstemp(path_.data());
    if (made < 0) throw std::runtime_error("cannot make a file in /dev/shm");
    ::close(made);
  }
  ~ScratchFile() { ::unlink(path_.c_str()); }
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;
  [[nodiscard]] const char* path() const { return path_.c_str(); }

 private:
  std::string path_ = "/dev/shm/latchkey-bench-XXXXXX";
};

using SqliteDatabase = std::unique_ptr<sqlite3, int (*)(sqlite3*)>;
using SqliteStatement = std::unique_ptr<sqlite3_stmt, int (*)(sqlite3_stmt*)>;

// A table by digest without row ids (the digest is the tree's key), a prepared statement, the file
// mapped into memory.
class Sqlite {
 public:
  static constexpr bool kConcurrent = false;

  class Access {
   public:
    explicit Access(const Sqlite& structure)
        : db_(opened(structure.file_.path())),
          begin_(prepared(db_, "BEGIN")),
          select_(prepared(db_, "SELECT record FROM key WHERE digest = ?")),
          end_(prepared(db_, "COMMIT")) {}

   private:
    friend class Sqlite;
    SqliteDatabase db_;
    SqliteStatement begin_, select_, end_;
  };

  explicit Sqlite(Population& population) {
    const SqliteDatabase db = opened(file_.path());
    execute(db, "PRAGMA journal_mode = OFF");
    execute(db, "CREATE TABLE key (digest BLOB PRIMARY KEY, record INTEGER) WITHOUT ROWID");
    execute(db, "BEGIN");
    const SqliteStatement insert = prepared(db, "INSERT INTO key VALUES (?, ?)");
    for_each_record(population, [&](const Digest& digest, const Record* record) {
      bind(insert, digest);
      sqlite3_bind_int64(insert.get(), 2,
                         static_cast<sqlite3_int64>(reinterpret_cast<std::uintptr_t>(record)));
      step(insert, SQLITE_DONE);
    });
    execute(db, "COMMIT");
  }

  void find(Access& access, std::span<const Digest> digests, std::span<const Record*> found) const {
    step(access.begin_, SQLITE_DONE);
    for (std::size_t i = 0; i < digests.size(); ++i) {
      bind(access.select_, digests[i]);
      found[i] = nullptr;
      if (sqlite3_step(access.select_.get()) == SQLITE_ROW) {
        const auto bits =
            static_cast<std::uintptr_t>(sqlite3_column_int64(access.select_.get(), 0));
        found[i] = reinterpret_cast<const Record*>(bits);
      }
      sqlite3_reset(access.select_.get());
    }
    step(access.end_, SQLITE_DONE);
  }

 private:
  static void require(bool good) {
    if (!good) throw std::runtime_error("SQLite refuses");
  }
  static void execute(const SqliteDatabase& db, const char* sql) {
    require(sqlite3_exec(db.get(), sql, nullptr, nullptr, nullptr) == SQLITE_OK);
  }
  static SqliteDatabase opened(const char* path) {
    sqlite3* made = nullptr;
    const int opened = sqlite3_open(path, &made);
    SqliteDatabase db(made, sqlite3_close);
    require(opened == SQLITE_OK);
    // The largest mapping that SQLite permits. No other process opens the file, so the exclusive
    // mode saves the locking of each transaction.
    execute(db, "PRAGMA mmap_size = 2147418112; PRAGMA locking_mode = EXCLUSIVE");
    return db;
  }
  static SqliteStatement prepared(const SqliteDatabase& db, const char* sql) {
    sqlite3_stmt* made = nullptr;
    require(sqlite3_prepare_v2(db.get(), sql, -1, &made, nullptr) == SQLITE_OK);
    return {made, sqlite3_finalize};
  }
  static void bind(const SqliteStatement& to, const Digest& digest) {
    sqlite3_bind_blob(to.get(), 1, digest.bytes.data(), static_cast<int>(digest.bytes.size()),
                      SQLITE_STATIC);
  }
  static void step(const SqliteStatement& statement, int wanted) {
    require(sqlite3_step(statement.get()) == wanted);
    sqlite3_reset(statement.get());
  }

  ScratchFile file_;
};

class Lmdb {
 public:
  static constexpr bool kConcurrent = false;

  class Access {
   public:
    explicit Access(const Lmdb& structure) {
      require(mdb_txn_begin(structure.env_.get(), nullptr, MDB_RDONLY, &read_) == 0);
      mdb_txn_reset(read_);
    }
    ~Access() { mdb_txn_abort(read_); }
    Access(const Access&) = delete;
    Access& operator=(const Access&) = delete;

   private:
    friend class Lmdb;
    MDB_txn* read_ = nullptr;
  };

  explicit Lmdb(Population& population) {
    MDB_env* made = nullptr;
    require(mdb_env_create(&made) == 0);
    env_.reset(made);
    // A key takes about 100 bytes, in leaves that are two thirds full.
    require(mdb_env_set_mapsize(made, (population.size() + 10'000) * 256) == 0);
    const unsigned flags = MDB_NOSUBDIR | MDB_NOSYNC | MDB_NOLOCK | MDB_NORDAHEAD;
    require(mdb_env_open(made, file_.path(), flags, 0600) == 0);
    MDB_txn* fill = nullptr;
    require(mdb_txn_begin(made, nullptr, 0, &fill) == 0);
    require(mdb_dbi_open(fill, nullptr, 0, &keys_) == 0);
    for_each_record(population, [&](const Digest& digest, const Record* record) {
      MDB_val key = value_of(digest), value{sizeof record, &record};
      require(mdb_put(fill, keys_, &key, &value, 0) == 0);
    });
    require(mdb_txn_commit(fill) == 0);
  }

  void find(Access& access, std::span<const Digest> digests, std::span<const Record*> found) const {
    require(mdb_txn_renew(access.read_) == 0);
    for (std::size_t i = 0; i < digests.size(); ++i) {
      MDB_val key = value_of(digests[i]), value;
      found[i] = nullptr;
      if (mdb_get(access.read_, keys_, &key, &value) == 0) {
        std::memcpy(&found[i], value.mv_data, sizeof found[i]);
      }
    }
    mdb_txn_reset(access.read_);
  }

 private:
  static void require(bool good) {
    if (!good) throw std::runtime_error("LMDB refuses");
  }
  static MDB_val value_of(const Digest& digest) {
    // LMDB takes keys as `void*` and does not write to them.
    return {digest.bytes.size(), const_cast<std::uint8_t*>(digest.bytes.data())};
  }

  ScratchFile file_;
  std::unique_ptr<MDB_env, void (*)(MDB_env*)> env_{nullptr, mdb_env_close};
  MDB_dbi keys_ = 0;
};

}  // namespace latchkey::bench
