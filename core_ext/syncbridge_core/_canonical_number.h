/* Canonical numbers: the exact decimal value of a token, in the layout of ECMAScript's
 * Number::toString with all of its digits. See json_canonical.h.
 *
 * Nothing is converted to a double, and to an integer only an exponent of up to 18 digits; to a
 * longer one is added digit by digit. O(length of the token), and no allocation.
 */
#ifndef SYNCBRIDGE_CANONICAL_NUMBER_H
#define SYNCBRIDGE_CANONICAL_NUMBER_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define JC_NUMBER_GROWS 24 /* bytes by which a number may become longer */

static inline int jc_is_digit(uint8_t c)
{
    return (uint8_t)(c - '0') < 10;
}

/* The byte after the number at p; NULL if it is broken or not surely canonical. */
static inline const uint8_t *jc_plain_number(const uint8_t *p, const uint8_t *end)
{
    int negative = *p == '-', zero;
    const uint8_t *start = p + negative, *point;
    for (p = start; p < end && jc_is_digit(*p); p++) {}
    if (p == start || p - start > 21)
        return NULL;
    zero = *start == '0';
    if (zero && p - start > 1)
        return NULL;
    point = p;
    if (p < end && *p == '.') {
        for (p++; p < end && jc_is_digit(*p); p++) {}
        if (p[-1] == '0' || p[-1] == '.')
            return NULL;
        if (zero && p - point > 6 && memcmp(point, ".000000", 7) == 0)
            return NULL;
    } else if (zero && negative) {
        return NULL;
    }
    return p < end && (*p | 0x20) == 'e' ? NULL : p;
}

/* ### Parsing a token ### */

/* A number that is not zero: how many digits begin at `first`, a point perhaps among them, and the
 * power of ten of the first. An exponent of more than 18 digits is [exponent, end), its sign in
 * `below`, and is still to be added to `power`. */
typedef struct {
    const uint8_t *first;
    size_t digits;
    int64_t power;
    const uint8_t *exponent, *end; /* NULL: in `power` already */
    int below;
} jc_number;

static void jc_read_exponent(jc_number *n, const uint8_t *p, const uint8_t *end)
{
    int64_t value = 0;
    n->below = *p == '-';
    for (p += *p == '-' || *p == '+'; p < end && *p == '0'; p++) {}
    if (end - p > 18) {
        n->exponent = p;
        n->end = end;
        return;
    }
    for (; p < end; p++)
        value = value * 10 + (*p - '0');
    n->power += n->below ? -value : value;
}

/* Parses the well-formed token that begins, without its sign, at p. 0: it is zero. */
static int jc_read_number(jc_number *n, const uint8_t *p, const uint8_t *end)
{
    const uint8_t *mark, *point = NULL, *last = NULL;
    memset(n, 0, sizeof *n);
    for (mark = p; mark < end && (*mark | 0x20) != 'e'; mark++) {
        if (*mark == '.') {
            point = mark;
        } else if (*mark != '0') {
            last = mark;
            n->first = n->first ? n->first : mark;
        }
    }
    if (!last)
        return 0;
    point = point ? point : mark;
    n->digits = (size_t)(last - n->first) + 1 - (n->first < point && point < last);
    n->power = n->first < point ? point - n->first - 1 : point - n->first;
    if (mark < end)
        jc_read_exponent(n, mark + 1, end);
    return 1;
}

/* ### Writing ### */

/* Copies digits from *from, and advances it. */
static uint8_t *jc_put_digits(uint8_t *to, const uint8_t **from, size_t count)
{
    const uint8_t *p = *from;
    while (count--) {
        p += *p == '.';
        *to++ = *p++;
    }
    *from = p;
    return to;
}

static uint8_t *jc_put_zeros(uint8_t *to, size_t count)
{
    memset(to, '0', count);
    return to + count;
}

/* Without exponent: -7 < power < 21. */
static uint8_t *jc_put_fixed(uint8_t *to, const jc_number *n)
{
    const uint8_t *from = n->first;
    size_t whole = n->power < 0 ? 0 : (size_t)n->power + 1;
    if (!whole) {
        *to++ = '0';
        *to++ = '.';
        to = jc_put_zeros(to, (size_t)(-n->power - 1));
        return jc_put_digits(to, &from, n->digits);
    }
    if (n->digits <= whole)
        return jc_put_zeros(jc_put_digits(to, &from, n->digits), whole - n->digits);
    to = jc_put_digits(to, &from, whole);
    *to++ = '.';
    return jc_put_digits(to, &from, n->digits - whole);
}

static uint8_t *jc_put_integer(uint8_t *to, uint64_t value)
{
    uint8_t digits[20];
    size_t count = 0;
    do {
        digits[count++] = (uint8_t)('0' + value % 10);
    } while (value /= 10);
    while (count)
        *to++ = digits[--count];
    return to;
}

/* An exponent of more than 18 digits, and `power` added to it; that changes its length by one digit
 * at most, and never its sign. */
static uint8_t *jc_put_long_exponent(uint8_t *to, const jc_number *n)
{
    size_t len = (size_t)(n->end - n->exponent);
    int64_t carry = n->below ? -n->power : n->power;
    to[0] = '0';
    memcpy(to + 1, n->exponent, len);
    for (size_t i = len; carry; i--) {
        int64_t sum = to[i] - '0' + carry, digit = (sum % 10 + 10) % 10;
        to[i] = (uint8_t)('0' + digit);
        carry = (sum - digit) / 10;
    }
    for (len++; *to == '0'; len--)
        memmove(to, to + 1, len - 1);
    return to + len;
}

/* The canonical form of the well-formed token [p, end). */
static uint8_t *jc_put_number(uint8_t *to, const uint8_t *p, const uint8_t *end)
{
    jc_number n;
    const uint8_t *from;
    int negative = *p == '-', below;
    if (!jc_read_number(&n, p + negative, end)) {
        *to++ = '0';
        return to;
    }
    if (negative)
        *to++ = '-';
    if (!n.exponent && -7 < n.power && n.power < 21)
        return jc_put_fixed(to, &n);
    from = n.first;
    to = jc_put_digits(to, &from, 1);
    if (n.digits > 1)
        *to++ = '.';
    to = jc_put_digits(to, &from, n.digits - 1);
    below = n.exponent ? n.below : n.power < 0;
    *to++ = 'e';
    *to++ = below ? '-' : '+';
    if (n.exponent)
        return jc_put_long_exponent(to, &n);
    return jc_put_integer(to, (uint64_t)(below ? -n.power : n.power));
}

#endif
