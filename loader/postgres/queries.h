// The SQL that reads a source. One column list serves the load (COPY, binary) and the re-read of
// single rows (binary results), so that a row means the same whichever way it comes.
//
// Nothing of the table owner's is called: values become text by output functions and by casts that
// are built in, and all that is named is pg_catalog's (sql_text.h, Output). What is longer than any
// answer is cut where it lies, so that it never travels: see the limits below.
#pragma once

#include <latchkey/wire.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "config/source.h"
#include "loader/postgres/catalogue.h"

namespace latchkey {

// A key below this length is reported: 19 hexadecimal digits are 76 random bits at most, and most
// keys that are so short were made up by somebody. The server compares; the key stays there.

// Where text is read as it is stored, the server makes no digest of a key that is not ASCII: it
// might not be able to convert it. (What holders present is UTF-8.) This arrives instead.
constexpr std::string_view kKeyNotAscii = "?";

// A longer value arrives cut, but longer than its limit: so the reader refuses or drops it, and
// counts it. A key that nobody could present, and a digest that is none, arrive as such.
constexpr int kTextBytesMax = LATCHKEY_CLAIMS_BYTES_MAX;
// As a column holds them: JSON may take six bytes (\u0041) for one.
constexpr int kScopesBytesMax = 6 * LATCHKEY_CLAIMS_BYTES_MAX;
constexpr int kKeyVersionBytesMax = 255;
constexpr int kDigestTextBytesMax = 256;
// Stored (perhaps compressed) size past which a value of another type than text is not looked into:
// what may pass takes at most some megabytes to look at. Not compressed, it is longer than
// kTextBytesMax as text in any case: jsonb takes at most four bytes for one (a list of digits). So
// triggers need not compare metadata that are larger in memory.
constexpr int kStoredBytesMax = 20 * 1024;
// Likewise of metadata, whatever the storage: what is short enough takes less, but for long lists
// of numbers that are not compressed. So triggers need not look into what is compressed and takes
// more: pglz makes 11 KiB of a megabyte at best.
constexpr int kMetadataStoredBytesMax = 5 * 1024;
// Below this it is not looked at first: decompressed (lz4: at most 255 times) it is still small.
constexpr int kStoredBytesSmall = 200;

// An integer time is a number of seconds since 1970, up to the year 2200. What is none arrives as
// the first moment that a timestamptz can hold (PostgreSQL manual, "Date/Time Types"), which no
// expiry is: the reader refuses the row.
constexpr std::int64_t kEpochSecondsMax = 7'258'118'400;  // 2200-01-01 00:00 UTC
constexpr const char* kNoTime = "4714-11-24 00:00:00+00 BC";
constexpr std::int64_t kNoTimePostgresUs = -211'813'488'000'000'000;

// Fields of a selected row, in this order.
enum RowField {
  kFieldId,           // text
  kFieldKey,          // bytea: 32 bytes; text where the encoding is hex or base64
  kFieldKeyVersion,   // text or null
  kFieldState,        // one letter: a(ctive) r(evoked) d(isabled) x (deleted) u(nknown status)
  kFieldExpires,      // timestamptz or null
  kFieldNotBefore,    // timestamptz or null
  kFieldSubject,      // text or null
  kFieldTenant,       // text or null
  kFieldScopes,       // text or null: a JSON array, or words (see scopes_are_json)
  kFieldMetadata,     // text or null
  kFieldJwtClaims,    // text or null: the middle part of a JWT, without its signature no credential
  kFieldShort,        // "s" where a key stored in the clear is shorter than kShortKeyBytes, or null
  kFieldUseTimeUnit,  // "x" where last_used_at is a number that is no time (kEpochSecondsMax), or
                      // null
  kFieldUnreadable,   // is not sent: set where a text cannot be converted to UTF-8
  kRowFields
};

// Counts in the digest of a table. The others say nothing of a key, and no trigger tells of them.
[[nodiscard]] constexpr bool is_hashed(RowField field) { return field != kFieldUseTimeUnit; }

// Which of these fields a row of this table has on its way to us, in this order, and as what. What
// a table does not have is not sent. Integers and jsonb are sent as they are: to make text of them
// would cost the server more than anything else about a row does.
//
// What would be text is bytea in a database whose text is read as it is stored (text_converter.h).
struct WireField {
  RowField field;
  std::uint32_t type;      // as PostgreSQL numbers it (pg_type.dat)
  bool as_stored = false;  // text in the database's encoding
};
constexpr std::uint32_t kBytea = 17, kInt8 = 20, kInt2 = 21, kInt4 = 23, kText = 25,
                        kTimestamptz = 1184, kJsonb = 3802;
[[nodiscard]] std::vector<WireField> wire_fields(const SourceConfig& source,
                                                 const TableFacts& facts);

// What a statement makes of the columns depends on their types: a flag is set if it is not false, a
// time if it is not NULL, and a binary COPY does not say of what types its fields are. So the
// server refuses both of these (SQLSTATE kLayoutChanged) if the table is not as it was when it was
// looked up: another relation of its name, a mapped column of another name, number or type.
constexpr std::string_view kLayoutChanged = "22P02";  // invalid_text_representation
[[nodiscard]] std::string load_sql(const SourceConfig& source, const TableFacts& facts);
// $1 is an array of ids, as text of the array type that id_array_type() names.
[[nodiscard]] std::string reread_sql(const SourceConfig& source, const TableFacts& facts);
// The digest of the whole table: rows of (bucket, rows, sum of row hashes as text); see RowSums and
// RowHasher.
[[nodiscard]] std::string digest_sql(const SourceConfig& source, const TableFacts& facts);
// COPY, binary, of (id as text, or as it is stored, row hash) of the rows in these buckets.
[[nodiscard]] std::string digest_rows_sql(const SourceConfig& source, const TableFacts& facts,
                                          const std::vector<std::uint32_t>& buckets);

// Writes when rows were last used, forward only. $1: array of ids as for reread_sql(); $2: array of
// as many bigint, microseconds since 1970. Answers (id text, written boolean) for each row whose
// time was older or NULL; not written is what somebody else has locked.
[[nodiscard]] std::string last_used_sql(const SourceConfig& source, const TableFacts& facts);

// An id from a notification as the table's own column would spell it: char(n) without its padding.
[[nodiscard]] std::string_view id_as_read(const SourceConfig& source, const TableFacts& facts,
                                          std::string_view id);
// Is this text an id that the re-read can be asked for? A notification can hold anything.
[[nodiscard]] bool is_id(const SourceConfig& source, const TableFacts& facts, std::string_view id);
// Could the database fail to convert this id to its own encoding? Then the query that asks for it
// would fail, and whoever forged it would keep others from being asked for.
[[nodiscard]] bool id_may_not_convert(const SourceConfig& source, const TableFacts& facts,
                                      std::string_view id);
// ids -> '{"a","b"}'
[[nodiscard]] std::string array_literal(const std::vector<std::string>& ids);

}  // namespace latchkey
