/* libFuzzer target of the merge kernel, with laws instead of examples.
 *
 * Any bytes are cut in two, a value and a patch. What js_scan accepts of both is merged, and must
 * obey: no report of the sanitizers, the result fits the room that was promised, it scans, and the
 * patch applied to it once more changes nothing.
 *
 *     make fuzz
 */
#include <assert.h>

#include "json_scan.h"

#include "json_merge.h"

static const js_limits LIMITS = {1 << 20, 2000, 256, 262144, 64, 64};

/* Compact copy of valid JSON in a block of its exact size, or NULL. */
static uint8_t *compact(const uint8_t *data, size_t len, size_t *size)
{
    uint8_t *out = malloc(len ? len : 1), *exact;
    js_result result;
    if (js_scan(data, len, &LIMITS, out, NULL, &result) != JS_OK) {
        free(out);
        return NULL;
    }
    *size = result.out_len;
    exact = malloc(*size);
    memcpy(exact, result.same ? data : out, *size);
    free(out);
    return exact;
}

static void check(const uint8_t *value, size_t value_len, const uint8_t *patch, size_t patch_len)
{
    uint8_t *once = malloc(value_len + patch_len), *twice, *room;
    size_t size = jm_merge_patch(value, value_len, patch, patch_len, once), again;
    js_result result;
    assert(size && size <= value_len + patch_len);
    room = malloc(size);
    assert(js_scan(once, size, &LIMITS, room, NULL, &result) == JS_OK);
    assert(result.same && result.out_len == size);
    twice = malloc(size + patch_len);
    again = jm_merge_patch(once, size, patch, patch_len, twice);
    assert(again == size && memcmp(once, twice, size) == 0);
    free(room);
    free(once);
    free(twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *value, *patch;
    size_t cut, value_len, patch_len;
    if (size < 1)
        return 0;
    cut = data[0] * (size - 1) / 255;
    value = compact(data + 1, cut, &value_len);
    patch = compact(data + 1 + cut, size - 1 - cut, &patch_len);
    if (patch && value)
        check(value, value_len, patch, patch_len);
    if (patch)
        check((const uint8_t *)"", 0, patch, patch_len);
    free(value);
    free(patch);
    return 0;
}
