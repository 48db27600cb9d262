/* SipHash-1-3 of a key, under a seed drawn once a process.
 *
 * Clients choose the keys. With a hash that they can compute they could send thousands of keys
 * that fall into one slot, and each insert would walk all of them. SipHash is a keyed function:
 * without the 128-bit seed nobody outside can aim at a slot. The 1-3 rounds are those of CPython
 * and Rust.
 *
 * The seed is the only global state of the scanner. It is written once, at import, and read after.
 */
#ifndef SYNCBRIDGE_JSON_HASH_H
#define SYNCBRIDGE_JSON_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static uint64_t js_seed[2];

/* Little-endian words. */
static inline uint64_t js_load64(const uint8_t *p)
{
    uint64_t word;
    memcpy(&word, p, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

static inline uint64_t js_load32(const uint8_t *p)
{
    uint32_t word;
    memcpy(&word, p, 4);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap32(word);
#endif
    return word;
}

/* Up to seven bytes as one little-endian integer. */
static inline uint64_t js_load_tail(const uint8_t *p, size_t len)
{
    if (len >= 4)
        return js_load32(p) | js_load32(p + len - 4) << 8 * (len - 4);
    if (len == 0)
        return 0;
    return p[0] | (uint64_t)p[len / 2] << 8 * (len / 2) | (uint64_t)p[len - 1] << 8 * (len - 1);
}

#define JS_ROTL(x, b) ((x) << (b) | (x) >> (64 - (b)))
#define JS_SIP_ROUND(a, b, c, d)                                                                   \
    do {                                                                                           \
        a += b, c += d, b = JS_ROTL(b, 13) ^ a, d = JS_ROTL(d, 16) ^ c, a = JS_ROTL(a, 32);        \
        c += b, a += d, b = JS_ROTL(b, 17) ^ c, d = JS_ROTL(d, 21) ^ a, c = JS_ROTL(c, 32);        \
    } while (0)

static inline uint64_t js_hash(const uint8_t *p, size_t len)
{
    uint64_t a = js_seed[0] ^ 0x736f6d6570736575u, b = js_seed[1] ^ 0x646f72616e646f6du;
    uint64_t c = js_seed[0] ^ 0x6c7967656e657261u, d = js_seed[1] ^ 0x7465646279746573u;
    uint64_t last = (uint64_t)len << 56;
    for (; len >= 8; p += 8, len -= 8) {
        uint64_t word = js_load64(p);
        d ^= word;
        JS_SIP_ROUND(a, b, c, d);
        a ^= word;
    }
    last |= js_load_tail(p, len);
    d ^= last;
    JS_SIP_ROUND(a, b, c, d);
    a ^= last;
    c ^= 0xff;
    JS_SIP_ROUND(a, b, c, d);
    JS_SIP_ROUND(a, b, c, d);
    JS_SIP_ROUND(a, b, c, d);
    return a ^ b ^ c ^ d;
}

#endif
