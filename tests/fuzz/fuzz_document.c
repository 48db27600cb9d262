/* libFuzzer target of the document scanner, with laws instead of examples.
 *
 * Any bytes, behind two bytes that choose limits, must scan without a report of the sanitizers, and
 * whatever is accepted must obey: the members tile the output, no key occurs twice, each key is
 * found again, and the output scans to itself.
 *
 * Build and run (Debian: clang, libclang-rt-14-dev):
 *
 *     clang -std=c11 -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
 *         -Icore_ext/syncbridge_core tests/fuzz/fuzz_document.c -o build/fuzz_document
 *     build/fuzz_document -max_len=4096 -max_total_time=60 build/corpus tests/fuzz/corpus/document
 *
 * New findings go to the first directory; the second holds the seeds and past crashes.
 */
#include <assert.h>

#include "json_scan.h"

static void check_members(const dt_table *t, dt_text text, size_t len)
{
    size_t at = 1;
    for (uint32_t i = 0; i < t->used; i++) {
        const dt_entry *e = &t->entries[i];
        const uint8_t *key = dt_key(text, e);
        assert(e->offset == at && key[-1] == '"' && dt_value(text, e)[-1] == ':');
        assert(dt_find(t, text, key, e->key_len - 1, e->hash) == i);
        at += dt_member_len(e) + 1;
        assert(at <= len && text.base[at - 1] == (i + 1 == t->used ? '}' : ','));
    }
    assert(t->used ? at == len : len == 2);
}

static js_code scan(const uint8_t *data, size_t len, const js_limits *limits, int split)
{
    uint8_t *out = malloc(len ? len : 1), *again = malloc(len ? len : 1);
    dt_table members = {0};
    js_result first, second;
    js_code code = js_scan(data, len, limits, out, split ? &members : NULL, &first);
    if (code == JS_OK) {
        const uint8_t *compact = first.same ? data : out;
        assert(first.out_len <= len);
        if (split)
            check_members(&members, (dt_text){compact, NULL, len}, first.out_len);
        dt_free(&members);
        assert(js_scan(compact, first.out_len, limits, again, split ? &members : NULL, &second)
               == JS_OK);
        assert(second.same && second.out_len == first.out_len);
    } else {
        assert(first.at <= len && first.key_at + first.key_len <= len && first.why);
    }
    dt_free(&members);
    free(out);
    free(again);
    return code;
}

/* Any bytes as a key: escaping and unescaping must give them back. */
static void check_key(const uint8_t *raw, size_t len)
{
    size_t size = js_inner_size(raw, len);
    uint8_t *inner = malloc(size + 1), *back = malloc(size + 1);
    assert((size_t)(js_escape(inner, raw, len) - inner) == size);
    assert((size_t)(js_unescape(back, inner, size) - back) == len);
    assert(memcmp(back, raw, len) == 0);
    free(inner);
    free(back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    js_limits limits = {1 << 20, 2000, 256, 262144, 64, 64};
    uint8_t *exact;
    js_code split;
    if (size < 2)
        return 0;
    if (data[0] & 1)
        limits.max_depth = 1 + data[1] % 8, limits.max_number_bytes = 400;
    if (data[0] & 2)
        limits.max_keys = 1 + data[1] % 16, limits.max_value_bytes = 64, limits.max_key_bytes = 8;
    /* A block of the exact size, so that one byte too far is seen. */
    exact = malloc(size - 2 ? size - 2 : 1);
    memcpy(exact, data + 2, size - 2);
    split = scan(exact, size - 2, &limits, 1);
    if (split == JS_OK && !(data[0] & 2))
        assert(scan(exact, size - 2, &limits, 0) == JS_OK);
    scan(exact, size - 2, &limits, 0);
    check_key(exact, size - 2);
    free(exact);
    return 0;
}
