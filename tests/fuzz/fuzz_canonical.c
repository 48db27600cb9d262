/* libFuzzer target of the canonical form, with laws instead of examples.
 *
 * Any bytes must pass without a report of the sanitizers, in the room that was promised, and:
 *
 * * the form of a form is the form itself, and what is called canonical at first sight is built so;
 * * of what js_scan accepts, the compact text has the same form, js_scan accepts the form and finds
 *   nothing to drop in it, and it equals the text;
 * * two texts, cut from the bytes, are equal exactly when their forms are.
 *
 *     make fuzz
 */
#include <assert.h>

#include "json_scan.h"

#include "json_canonical.h"

static const js_limits LIMITS = {1 << 20, 2000, 256, 262144, JC_MAX_DEPTH, 1 << 20};

typedef struct {
    uint8_t *text;
    size_t len;
} form;

/* A copy in a block of the exact size, so that one byte too far is seen. */
static form copy(const uint8_t *text, size_t len)
{
    form f = {malloc(len ? len : 1), len};
    memcpy(f.text, text, len);
    return f;
}

/* The form as it is built, whatever the first sight says. */
static form build(const uint8_t *text, size_t len)
{
    form f;
    assert(jc_build(text, len, &f.text, &f.len));
    return f.text ? f : copy(text, len);
}

static form canonical(const uint8_t *text, size_t len)
{
    form f;
    assert(jc_canonical(text, len, &f.text, &f.len));
    return f.text ? f : copy(text, len);
}

static int same(form a, form b)
{
    return a.len == b.len && memcmp(a.text, b.text, a.len) == 0;
}

static void check_scanned(const uint8_t *text, size_t len, form f)
{
    uint8_t *out = malloc(len ? len : 1), *room;
    js_result result;
    js_code code = js_scan(text, len, &LIMITS, out, NULL, &result);
    if (code == JS_OK) {
        form compact = canonical(result.same ? text : out, result.out_len);
        assert(same(compact, f));
        room = malloc(f.len);
        /* Digits may be more than before, but a form is never another number. */
        assert(js_scan(f.text, f.len, &LIMITS, room, NULL, &result) == JS_OK);
        assert(result.same && result.out_len == f.len);
        assert(jc_same(text, len, f.text, f.len) == 1);
        free(room);
        free(compact.text);
    } else if (code == JS_INVALID_JSON || code == JS_DUPLICATE_KEY || code == JS_TOO_DEEP) {
        assert(f.len == len && memcmp(f.text, text, len) == 0);
    }
    free(out);
}

static form check(const uint8_t *text, size_t len)
{
    form f = canonical(text, len), built = build(text, len), again = canonical(f.text, f.len);
    form built_again = build(f.text, f.len);
    assert(same(f, built) && same(f, again) && same(f, built_again));
    check_scanned(text, len, f);
    free(built.text);
    free(again.text);
    free(built_again.text);
    return f;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    form a, b, a_form, b_form, whole, whole_form;
    size_t cut;
    if (size < 1)
        return 0;
    cut = data[0] * (size - 1) / 255;
    whole = copy(data + 1, size - 1);
    a = copy(data + 1, cut);
    b = copy(data + 1 + cut, size - 1 - cut);
    whole_form = check(whole.text, whole.len);
    a_form = check(a.text, a.len);
    b_form = check(b.text, b.len);
    assert(jc_same(a.text, a.len, b.text, b.len) == same(a_form, b_form));
    free(whole_form.text);
    free(a_form.text);
    free(b_form.text);
    free(whole.text);
    free(a.text);
    free(b.text);
    return 0;
}
