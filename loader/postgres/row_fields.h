// The fields of a selected row: which there are, in which type they come, and the SQL of each.
// Values that are too long to be served are cut by the server, so that they never travel: see the
// limits below.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "config/source.h"
#include "latchkey/wire.h"
#include "loader/postgres/catalogue.h"

namespace latchkey {

// Takes the place of a key's digest if the key is not ASCII and its database's text is read as it
// is stored (but not in SQL_ASCII): the server might be unable to convert the key to UTF-8, in
// which keys are presented.
constexpr std::string_view kKeyNotAscii = "?";

// A value above its limit arrives cut, but still longer than the limit: the reader refuses or drops
// it, and counts it. A key that is too long to be presented arrives as an empty digest, and a
// digest that is too long arrives as an invalid one.
constexpr int kTextBytesMax = LATCHKEY_CLAIMS_BYTES_MAX;
// In the column's form: JSON may take six bytes (\u0041) for one.
constexpr int kScopesBytesMax = 6 * LATCHKEY_CLAIMS_BYTES_MAX;
constexpr int kKeyVersionBytesMax = 255;
constexpr int kDigestTextBytesMax = 256;
// Above this stored (perhaps compressed) size the server does not look into a value of a type other
// than text: looking into a smaller value takes some megabytes at most. An uncompressed value above
// it is in any case longer than kTextBytesMax as text: jsonb takes at most four bytes for one (a
// list of digits). So triggers need not compare metadata that are larger in memory.
constexpr int kStoredBytesMax = 20 * 1024;
// The limit of metadata, compressed or not: metadata that are short enough take less, except for
// long lists of numbers that are not compressed. So triggers need not look into compressed values
// above it: pglz compresses a megabyte to 11 KiB at best.
constexpr int kMetadataStoredBytesMax = 5 * 1024;
// Values up to this stored size are not measured: decompressed (lz4: at most 255 times) they are
// still small.
constexpr int kStoredBytesSmall = 200;

// An integer time is a number of seconds since 1970, up to the year 2200. Any other integer arrives
// as the first moment that a timestamptz can hold (PostgreSQL manual, "Date/Time Types"). No expiry
// has that value: the reader refuses the row.
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
  kFieldJwtClaims,    // text or null: the middle part of a JWT: no credential without its signature
  kFieldShort,        // "s" if a key stored in the clear is shorter than kShortKeyBytes, or null
  kFieldUseTimeUnit,  // "x" if last_used_at is a number but no time (kEpochSecondsMax), or
                      // null
  kFieldUnreadable,   // not sent: set if a text cannot be converted to UTF-8
  kRowFields
};

// True if the field counts in a table's digest. The other fields do not affect a key, and no
// trigger reports their changes.
[[nodiscard]] constexpr bool is_hashed(RowField field) { return field != kFieldUseTimeUnit; }

// The fields that a row of this table has on the wire, in RowField order, and their types. A field
// that the table lacks is not sent. Integers and jsonb are sent in their binary form: conversion to
// text would be the most expensive part of a row for the server.
//
// A text field is sent as bytea if the database's text is read as it is stored (text_converter.h).
struct WireField {
  RowField field;
  std::uint32_t type;      // the type's OID (pg_type.dat)
  bool as_stored = false;  // text in the database's encoding
};
constexpr std::uint32_t kBytea = 17, kInt8 = 20, kInt2 = 21, kInt4 = 23, kText = 25,
                        kTimestamptz = 1184, kJsonb = 3802;
[[nodiscard]] std::vector<WireField> wire_fields(const SourceConfig& source,
                                                 const TableFacts& facts);

// The SQL of all fields, in wire_fields()' order; and with those that no digest counts as NULL.
[[nodiscard]] std::string fields_of(const SourceConfig& source, const TableFacts& facts);
[[nodiscard]] std::string hashed_fields_of(const SourceConfig& source, const TableFacts& facts);
// The id in the triggers' spelling. (It is NOT NULL.)
[[nodiscard]] std::string id_of(const SourceConfig& source, const TableFacts& facts);
// The id as text, cut, and as it is stored where the database's text is read so.
[[nodiscard]] std::string id_field_of(const SourceConfig& source, const TableFacts& facts);
// True if the row has a key.
[[nodiscard]] std::string has_key(const SourceConfig& source, const TableFacts& facts);
// The last second that an integer time may hold, as SQL.
[[nodiscard]] std::string epoch_seconds_max();
// The column of the table that queries call t.
[[nodiscard]] std::string qualified(const std::string& column);

}  // namespace latchkey
