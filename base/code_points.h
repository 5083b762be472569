/* UTF-8 decoding and the set of hidden code points. In C, because liblatchkey shares this file;
 * base/printable.h is the C++ interface. */
#ifndef LATCHKEY_PROTOCOL_CODE_POINTS_H
#define LATCHKEY_PROTOCOL_CODE_POINTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Returns the length of the first code point in bytes; 0 if the bytes are not valid UTF-8 (RFC
 * 3629, section 4: no overlong form, no surrogate, nothing beyond U+10FFFF, nothing truncated). */
static inline size_t latchkey_code_point(const unsigned char* bytes, size_t size, uint32_t* code) {
  if (size == 0) return 0;
  const unsigned char first = bytes[0];
  if (first < 0x80) {
    *code = first;
    return 1;
  }
  const size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || size < length) return 0;
  uint32_t value = first & (0xFFu >> (length + 1));
  for (size_t i = 1; i < length; ++i) {
    if ((bytes[i] & 0xC0) != 0x80) return 0;
    value = value << 6 | (bytes[i] & 0x3Fu);
  }
  const uint32_t least = length == 4 ? 0x10000u : length == 3 ? 0x800u : 0x80u;
  if (value < least || value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) return 0;
  *code = value;
  return length;
}

/* Invisible code points that a terminal, an editor or a browser interprets, or that make
 * different texts look the same (Unicode 15: general categories Cc, Cf, Cs, Zl and Zp,
 * Default_Ignorable_Code_Point, and the noncharacters). */
static inline bool latchkey_is_hidden(uint32_t code) {
  static const struct {
    uint32_t first, last;
  } kHidden[] = {
      {0x0000, 0x001F},   /* C0 controls: escape sequences, line breaks */
      {0x007F, 0x009F},   /* DEL, C1 controls: CSI in one character */
      {0x00AD, 0x00AD},   /* soft hyphen */
      {0x034F, 0x034F},   /* combining grapheme joiner */
      {0x0600, 0x0605},   /* Arabic number signs, which enclose the next characters */
      {0x061C, 0x061C},   /* Arabic letter mark (direction) */
      {0x06DD, 0x06DD},   /* Arabic end of ayah, which encloses the next characters */
      {0x070F, 0x070F},   /* Syriac abbreviation mark */
      {0x0890, 0x0891},   /* Arabic currency marks above */
      {0x08E2, 0x08E2},   /* Arabic disputed end of ayah */
      {0x115F, 0x1160},   /* Hangul fillers */
      {0x17B4, 0x17B5},   /* Khmer inherent vowels */
      {0x180B, 0x180F},   /* Mongolian selectors and vowel separator */
      {0x200B, 0x200F},   /* zero width space, joiners; marks of direction */
      {0x2028, 0x202E},   /* line and paragraph separators; embeddings and overrides of direction */
      {0x2060, 0x206F},   /* word joiner, invisible operators, isolates */
      {0x3164, 0x3164},   /* Hangul filler */
      {0xD800, 0xDFFF},   /* surrogates */
      {0xFDD0, 0xFDEF},   /* noncharacters */
      {0xFE00, 0xFE0F},   /* variation selectors */
      {0xFEFF, 0xFEFF},   /* byte order mark */
      {0xFFA0, 0xFFA0},   /* halfwidth Hangul filler */
      {0xFFF0, 0xFFFB},   /* reserved code points, interlinear annotations */
      {0x110BD, 0x110BD}, /* Kaithi number signs */
      {0x110CD, 0x110CD}, {0x13430, 0x1343F}, /* Egyptian hieroglyph format controls */
      {0x1BCA0, 0x1BCA3},                     /* shorthand format controls */
      {0x1D173, 0x1D17A},                     /* musical format controls */
      {0xE0000, 0xE0FFF},                     /* tags, variation selectors, reserved code points */
  };
  if (code >= 0x20 && code < 0x7F) return false;
  if ((code & 0xFFFE) == 0xFFFE || code > 0x10FFFF) return true; /* noncharacters of each plane */
  for (size_t i = 0; i < sizeof kHidden / sizeof *kHidden; ++i) {
    if (code <= kHidden[i].last) return code >= kHidden[i].first;
  }
  return false;
}

#endif
