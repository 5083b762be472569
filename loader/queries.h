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

#include "loader/catalogue.h"
#include "loader/source.h"

namespace latchkey {

// A key below this length is reported: 19 hexadecimal digits are 76 random bits at most, and most
// keys that are so short were made up by somebody. The server compares; the key stays there.
constexpr int kShortKeyBytes = 20;

// A longer value arrives cut, but longer than its limit: so the reader refuses or drops it, and
// counts it. A key that nobody could present, and a digest that is none, arrive as such.
constexpr int kTextBytesMax = LATCHKEY_CLAIMS_BYTES_MAX;
// As a column holds them: JSON may take six bytes (\u0041) for one.
constexpr int kScopesBytesMax = 6 * LATCHKEY_CLAIMS_BYTES_MAX;
constexpr int kKeyVersionBytesMax = 255;
constexpr int kDigestTextBytesMax = 256;
// Stored (perhaps compressed) size past which a value of another type than text is not looked into:
// what may pass takes at most some megabytes to look at.
constexpr int kStoredBytesMax = 32 * 1024;
// Below this it is not looked at first: decompressed (lz4: at most 255 times) it is still small.
constexpr int kStoredBytesSmall = 200;

// Fields of a selected row, in this order.
enum RowField {
  kFieldId,          // text
  kFieldKey,         // bytea: 32 bytes; text where the encoding is hex or base64
  kFieldKeyVersion,  // text or null
  kFieldState,       // one letter: a(ctive) r(evoked) d(isabled) x (deleted) u(nknown status)
  kFieldExpires,     // timestamptz or null
  kFieldNotBefore,   // timestamptz or null
  kFieldSubject,     // text or null
  kFieldTenant,      // text or null
  kFieldScopes,      // text or null: a JSON array, or words (see scopes_are_json)
  kFieldMetadata,    // text or null
  kFieldJwtClaims,   // text or null: the middle part of a JWT, without its signature no credential
  kFieldShort,       // "s" where a key stored in the clear is shorter than kShortKeyBytes, or null
  kRowFields
};

// Which of these fields a row of this table has on its way to us, in this order, and as what. What
// a table does not have is not sent. Integers and jsonb are sent as they are: to make text of them
// would cost the server more than anything else about a row does.
struct WireField {
  RowField field;
  std::uint32_t type;  // as PostgreSQL numbers it (pg_type.dat)
};
constexpr std::uint32_t kBytea = 17, kInt8 = 20, kInt2 = 21, kInt4 = 23, kText = 25,
                        kTimestamptz = 1184, kJsonb = 3802;
[[nodiscard]] std::vector<WireField> wire_fields(const SourceConfig& source,
                                                 const TableFacts& facts);

[[nodiscard]] std::string load_sql(const SourceConfig& source, const TableFacts& facts);
// $1 is an array of ids, as text of the array type that id_array_type() names.
[[nodiscard]] std::string reread_sql(const SourceConfig& source, const TableFacts& facts);
// The digest of the whole table: rows of (bucket, rows, sum of row hashes as text); see RowSums and
// RowHasher.
[[nodiscard]] std::string digest_sql(const SourceConfig& source, const TableFacts& facts);
// COPY, binary, of (id as text, row hash) of the rows in these buckets.
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
// Can a notification without ids mean nothing else than a TRUNCATE, which versions_sql() shows? Ids
// of these types are never too long for a notification.
[[nodiscard]] bool all_means_truncate(const SourceConfig& source, const TableFacts& facts);
// ids -> '{"a","b"}'
[[nodiscard]] std::string array_literal(const std::vector<std::string>& ids);

}  // namespace latchkey
