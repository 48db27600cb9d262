/* JSON strings and numbers as bytes: validate, escape, unescape. RFC 8259 sections 6 and 7,
 * RFC 7493 sections 2.1 and 2.2.
 *
 * Two spellings of a key occur here. *Raw* is the key itself in UTF-8. *Inner* is the canonical
 * spelling between the quotes of a JSON string: quote, backslash and the control characters are
 * escaped, each in its shortest form, everything else stands for itself. The map raw -> inner is
 * one-to-one, also on bytes that are not UTF-8, so keys are stored, hashed and compared as inner
 * and need no second copy. An inner is never longer than any other escaped spelling of its key.
 *
 * All functions take [p, end) and read nothing outside; none of them allocates.
 */
#ifndef SYNCBRIDGE_JSON_TEXT_H
#define SYNCBRIDGE_JSON_TEXT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* ### Runs of plain bytes ### */

/* A byte that a JSON string may hold as it is, without a second look: printable ASCII. */
static inline int js_is_plain(uint8_t c)
{
    return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

/* First byte of [p, end) that is not plain, or end. One signed comparison finds both the control
 * characters and, because they are negative, the bytes from 0x80. */
static inline const uint8_t *js_skip_plain(const uint8_t *p, const uint8_t *end)
{
#ifdef __SSE2__
    const __m128i quote = _mm_set1_epi8('"'), slash = _mm_set1_epi8('\\');
    const __m128i space = _mm_set1_epi8(0x20);
    for (; end - p >= 16; p += 16) {
        __m128i x = _mm_loadu_si128((const __m128i *)p);
        __m128i hit = _mm_or_si128(_mm_cmpeq_epi8(x, quote), _mm_cmpeq_epi8(x, slash));
        int mask = _mm_movemask_epi8(_mm_or_si128(hit, _mm_cmplt_epi8(x, space)));
        if (mask)
            return p + __builtin_ctz((unsigned)mask);
    }
#endif
    while (p < end && js_is_plain(*p))
        p++;
    return p;
}

/* Length of the well-formed UTF-8 sequence at p, whose first byte is >= 0x80; 0 if there is none.
 * Overlong forms, surrogates and everything above U+10FFFF are refused (RFC 3629 section 4). */
static inline size_t js_utf8_length(const uint8_t *p, const uint8_t *end)
{
    size_t left = (size_t)(end - p);
    uint8_t a = p[0], low = 0x80, high = 0xBF;
    if (a < 0xC2 || a > 0xF4 || left < 2)
        return 0;
    if (a < 0xE0)
        return (p[1] & 0xC0) == 0x80 ? 2 : 0;
    if (a == 0xE0)
        low = 0xA0;
    else if (a == 0xED)
        high = 0x9F;
    else if (a == 0xF0)
        low = 0x90;
    else if (a == 0xF4)
        high = 0x8F;
    if (p[1] < low || p[1] > high || left < 3 || (p[2] & 0xC0) != 0x80)
        return 0;
    if (a < 0xF0)
        return 3;
    return left >= 4 && (p[3] & 0xC0) == 0x80 ? 4 : 0;
}

static inline int js_is_utf8(const uint8_t *p, const uint8_t *end)
{
    while ((p = js_skip_plain(p, end)) < end) {
        size_t n = *p < 0x80 ? 1 : js_utf8_length(p, end);
        if (!n)
            return 0;
        p += n;
    }
    return 1;
}

/* ### Escapes ### */

static inline int js_hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The four hex digits at p as a code unit, or -1. */
static inline int js_code_unit(const uint8_t *p, const uint8_t *end)
{
    int unit = 0;
    if (end - p < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        int digit = js_hex_digit(p[i]);
        if (digit < 0)
            return -1;
        unit = unit << 4 | digit;
    }
    return unit;
}

/* Reads the escape whose backslash is at p: its code point goes to *code, the byte after it is
 * returned. NULL if it is none, or half of a surrogate pair (RFC 7493 section 2.1). */
static inline const uint8_t *js_read_escape(const uint8_t *p, const uint8_t *end, uint32_t *code)
{
    static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    int unit, second;
    if (end - p < 2)
        return NULL;
    if (p[1] != 'u') {
        const char *found = p[1] ? strchr(letters, p[1]) : NULL;
        if (!found)
            return NULL;
        *code = (uint8_t)meanings[found - letters];
        return p + 2;
    }
    if ((unit = js_code_unit(p + 2, end)) < 0)
        return NULL;
    *code = (uint32_t)unit;
    if (unit < 0xD800 || unit > 0xDFFF)
        return p + 6;
    if (unit > 0xDBFF || end - p < 12 || p[6] != '\\' || p[7] != 'u')
        return NULL;
    second = js_code_unit(p + 8, end);
    if (second < 0xDC00 || second > 0xDFFF)
        return NULL;
    *code = 0x10000 + (((uint32_t)(unit - 0xD800) << 10) | (uint32_t)(second - 0xDC00));
    return p + 12;
}

/* UTF-8 of a code point; the byte after it is returned. */
static inline uint8_t *js_put_utf8(uint8_t *to, uint32_t code)
{
    if (code < 0x80) {
        *to++ = (uint8_t)code;
        return to;
    }
    if (code < 0x800) {
        *to++ = (uint8_t)(0xC0 | code >> 6);
    } else {
        if (code < 0x10000) {
            *to++ = (uint8_t)(0xE0 | code >> 12);
        } else {
            *to++ = (uint8_t)(0xF0 | code >> 18);
            *to++ = (uint8_t)(0x80 | (code >> 12 & 0x3F));
        }
        *to++ = (uint8_t)(0x80 | (code >> 6 & 0x3F));
    }
    *to++ = (uint8_t)(0x80 | (code & 0x3F));
    return to;
}

/* The letter of the two-byte escape of c, or 0. */
static inline char js_short_escape(uint8_t c)
{
    switch (c) {
    case '"': return '"';
    case '\\': return '\\';
    case '\b': return 'b';
    case '\f': return 'f';
    case '\n': return 'n';
    case '\r': return 'r';
    case '\t': return 't';
    default: return 0;
    }
}

static inline uint8_t *js_put_escaped(uint8_t *to, uint8_t c)
{
    static const char hex[] = "0123456789abcdef";
    char letter = js_short_escape(c);
    *to++ = '\\';
    if (letter) {
        *to++ = (uint8_t)letter;
        return to;
    }
    memcpy(to, "u00", 3);
    to[3] = (uint8_t)hex[c >> 4];
    to[4] = (uint8_t)hex[c & 15];
    return to + 5;
}

static inline int js_needs_escape(uint8_t c)
{
    return c < 0x20 || c == '"' || c == '\\';
}

/* Bytes that the inner of a raw text takes. Equal to the raw length if nothing is escaped. */
static inline size_t js_inner_size(const uint8_t *p, size_t len)
{
    const uint8_t *end = p + len;
    size_t size = len;
    while ((p = js_skip_plain(p, end)) < end) {
        if (js_needs_escape(*p))
            size += js_short_escape(*p) ? 1 : 5;
        p++;
    }
    return size;
}

/* raw -> inner. `to` has room for js_inner_size() bytes; the byte after the last is returned. */
static inline uint8_t *js_escape(uint8_t *to, const uint8_t *p, size_t len)
{
    const uint8_t *end = p + len;
    while (p < end) {
        const uint8_t *stop = js_skip_plain(p, end);
        memcpy(to, p, (size_t)(stop - p));
        to += stop - p;
        if (stop == end)
            break;
        if (js_needs_escape(*stop))
            to = js_put_escaped(to, *stop);
        else
            *to++ = *stop;
        p = stop + 1;
    }
    return to;
}

/* Writes `"inner":value` or, without value, `"inner"`; the byte after it is returned. */
static inline uint8_t *js_put_member(
    uint8_t *to, const uint8_t *key, size_t len, const uint8_t *value, size_t value_len)
{
    *to++ = '"';
    to = js_escape(to, key, len);
    *to++ = '"';
    if (value) {
        *to++ = ':';
        memcpy(to, value, value_len);
        to += value_len;
    }
    return to;
}

/* inner (or any valid string body) -> raw. `to` has room for `len` bytes. */
static inline uint8_t *js_unescape(uint8_t *to, const uint8_t *p, size_t len)
{
    const uint8_t *end = p + len;
    uint32_t code;
    while (p < end) {
        if (*p != '\\') {
            *to++ = *p++;
        } else if ((p = js_read_escape(p, end, &code)) != NULL) {
            to = js_put_utf8(to, code);
        } else {
            break;
        }
    }
    return to;
}

/* Any valid string body -> inner, never longer. *raw_len is the length of the key itself, *nul
 * whether it holds U+0000. */
static inline uint8_t *js_canonical(
    uint8_t *to, const uint8_t *p, const uint8_t *end, size_t *raw_len, int *nul)
{
    uint32_t code;
    size_t raw = 0;
    while (p < end) {
        if (*p != '\\') {
            *to++ = *p++, raw++;
            continue;
        }
        p = js_read_escape(p, end, &code);
        if (!p)
            break;
        *nul |= code == 0;
        if (code < 0x80 && js_needs_escape((uint8_t)code)) {
            to = js_put_escaped(to, (uint8_t)code), raw++;
        } else {
            uint8_t *after = js_put_utf8(to, code);
            raw += (size_t)(after - to);
            to = after;
        }
    }
    *raw_len = raw;
    return to;
}

/* ### Numbers ### */

/* The least magnitude that rounds to infinity: 2^1024 - 2^970, half a unit above the greatest
 * double. A token is compared with it digit by digit, so no conversion and no locale is needed. */
static const char JS_OVERFLOW[] =
    "17976931348623158079372897140530341507993413271003782693617377898044496829276475094664901797"
    "75872070963302864166928879109465555478519404026306574886715058206819089020007083836762738548"
    "45817711531764475730270069855571366959622842914819860834936475292719074168444365510704342711"
    "559699508093042880177904174497792";

/* Is |number| >= 2^1024 - 2^970? The token in [p, end) is well formed. */
static inline int js_overflows(const uint8_t *p, const uint8_t *end)
{
    const uint8_t *mark = p, *first = NULL;
    int64_t whole = 0, lead = 0, exponent = 0, scale;
    int negative, fraction = 0;
    size_t i = 0;
    for (; mark < end && *mark != 'e' && *mark != 'E'; mark++) {
        if (*mark == '.')
            fraction = 1;
        else if (*mark == '-')
            continue;
        else if (!fraction)
            whole++;
        else if (!first)
            lead--;
        if (!first && *mark >= '1')
            first = mark;
    }
    if (!first)
        return 0;
    if (mark < end) {
        const uint8_t *e = mark + 1;
        negative = *e == '-';
        for (e += *e == '-' || *e == '+'; e < end; e++)
            if (exponent < INT32_MAX)
                exponent = exponent * 10 + (*e - '0');
        if (negative)
            exponent = -exponent;
    }
    /* `first` stands for 10^scale. A nonzero whole part begins with it (no leading zeros). */
    scale = exponent + (lead ? lead : whole - 1);
    if (scale != 308)
        return scale > 308;
    for (p = first; p < mark && i < sizeof JS_OVERFLOW - 1; p++) {
        if (*p == '.')
            continue;
        if (*p != (uint8_t)JS_OVERFLOW[i])
            return *p > (uint8_t)JS_OVERFLOW[i];
        i++;
    }
    return i == sizeof JS_OVERFLOW - 1;
}

/* The byte after the number token at p, or NULL if its grammar is broken (RFC 8259 section 6). A
 * token ends where no byte of a number can follow, so `01` and `1.e` are broken as a whole. */
static inline const uint8_t *js_number_end(const uint8_t *p, const uint8_t *end, int *exponent)
{
#define JS_DIGIT(q) ((q) < end && (uint8_t)(*(q) - '0') < 10)
    p += *p == '-';
    if (!JS_DIGIT(p))
        return NULL;
    if (*p == '0')
        p++;
    else
        while (JS_DIGIT(p))
            p++;
    if (p < end && *p == '.') {
        if (!JS_DIGIT(p + 1))
            return NULL;
        for (p++; JS_DIGIT(p); p++) {}
    }
    if (p < end && (*p | 0x20) == 'e') {
        *exponent = 1;
        p++;
        p += p < end && (*p == '+' || *p == '-');
        if (!JS_DIGIT(p))
            return NULL;
        while (JS_DIGIT(p))
            p++;
    }
    if (p < end && ((*p >= '+' && *p <= '9' && *p != ',' && *p != '/') || (*p | 0x20) == 'e'))
        return NULL;
    return p;
#undef JS_DIGIT
}

#endif
