#include "towline/fields.h"

#include <string.h>

enum { MAX_FEATURES = 1024, MAX_SOFTWARE = 128 };
enum { TAG_FEATURES = 7, TAG_SOFTWARE = 8, TAG_SERVICE = 9, TAG_KEY_LIST = 10 };
enum { FIELD_HEADER = 3 };

/* Tags 1 to 6 are numbers, in the order of tl_limits. */
enum { NUMBERS = 6 };
static const struct {
    uint32_t low, high, absent;
} number_rules[NUMBERS] = {
    {256, 65535, 16384},              /* max_frame */
    {2048, UINT32_MAX, 65536},        /* max_message */
    {1, UINT32_MAX, 65536},           /* stream_window */
    {1, UINT32_MAX, 1048576},         /* connection_window */
    {0, UINT32_MAX, 64},              /* max_streams */
    {4000, 300000, 4000},             /* keepalive_ms */
};

_Static_assert(sizeof(tl_limits) == NUMBERS * sizeof(uint32_t), "tl_limits is read and written as an array");

/* Takes one field; false where it is cut short. */
static bool take_field(tl_span *from, uint8_t *tag, tl_span *value)
{
    tl_span header = tl_take(from, FIELD_HEADER);
    if (header.n < FIELD_HEADER || tl_u16(header.at + 1) > from->n) {
        return false;
    }
    *tag = header.at[0];
    *value = tl_take(from, tl_u16(header.at + 1));
    return true;
}

static void put_field(tl_out *out, uint8_t tag, tl_span value)
{
    tl_put_u8(out, tag);
    tl_put_u16(out, (uint16_t)value.n);
    tl_put_span(out, value);
}

void tl_auth_transcript(tl_out *out, const uint8_t nonce[TL_NONCE_SIZE], tl_span server_name, tl_span device,
                        const uint8_t instance[TL_INSTANCE_SIZE])
{
    tl_put_text(out, "towline-auth-v1");
    tl_put(out, nonce, TL_NONCE_SIZE);
    tl_put_u16(out, (uint16_t)server_name.n);
    tl_put_span(out, server_name);
    tl_put_u16(out, (uint16_t)device.n);
    tl_put_span(out, device);
    tl_put(out, instance, TL_INSTANCE_SIZE);
}

size_t tl_auth_size(const tl_auth *auth)
{
    return 4 * FIELD_HEADER + auth->device_n + sizeof auth->instance + sizeof auth->key_id + sizeof auth->signature;
}

void tl_auth_put(tl_out *out, const tl_auth *auth)
{
    put_field(out, 1, (tl_span){(const uint8_t *)auth->device, auth->device_n});
    put_field(out, 2, (tl_span){auth->instance, sizeof auth->instance});
    put_field(out, 3, (tl_span){auth->key_id, sizeof auth->key_id});
    put_field(out, 4, (tl_span){auth->signature, sizeof auth->signature});
}

static tl_wrong read_number(tl_span value, unsigned index, uint32_t *number)
{
    if (value.n != 4) {
        return "HELLO: a number has a wrong length";
    }
    *number = tl_u32(value.at);
    if (*number < number_rules[index].low || *number > number_rules[index].high) {
        return "HELLO: a number is out of range";
    }
    return NULL;
}

static tl_wrong read_text(tl_hello *hello, uint8_t tag, tl_span value)
{
    if (tag == TAG_KEY_LIST) {
        hello->key_list = value;
        hello->has_key_list = true;
        return tl_is_ascii(value) ? NULL : "HELLO: key_list is not ASCII";
    }
    size_t longest = tag == TAG_FEATURES ? MAX_FEATURES : MAX_SOFTWARE;
    *(tag == TAG_FEATURES ? &hello->features : &hello->software) = value;
    return value.n <= longest && tl_is_utf8(value) ? NULL : "HELLO: malformed text";
}

tl_wrong tl_hello_parse(tl_span payload, tl_hello *out)
{
    uint32_t numbers[NUMBERS];
    uint32_t seen = 0;
    *out = (tl_hello){0};
    for (unsigned i = 0; i < NUMBERS; i++) {
        numbers[i] = number_rules[i].absent;
    }
    while (payload.n > 0) {
        uint8_t tag;
        tl_span value;
        tl_wrong wrong = NULL;
        if (!take_field(&payload, &tag, &value)) {
            return "HELLO: a field is cut short";
        }
        if (tag < 1 || tag > TAG_KEY_LIST || tag == TAG_SERVICE) {
            continue;
        }
        if ((seen & (1u << tag)) != 0) {
            return "HELLO: a field stands twice";
        }
        seen |= 1u << tag;
        wrong = tag <= NUMBERS ? read_number(value, tag - 1u, &numbers[tag - 1u]) : read_text(out, tag, value);
        if (wrong != NULL) {
            return wrong;
        }
    }
    memcpy(&out->limits, numbers, sizeof out->limits);
    return NULL;
}

static void put_service(tl_out *out, const tl_service *service)
{
    tl_put_u8(out, TAG_SERVICE);
    size_t length_at = out->n;
    tl_put_u16(out, 0); /* filled in below */
    tl_put_span(out, service->name);
    tl_put_text(out, "=");
    tl_put_span(out, service->kind);
    tl_put_text(out, service->preserve ? ";host=preserve" : ";host=rewrite");
    tl_put_text(out, service->forwarded ? ";forwarded=1" : ";forwarded=0");
    if (service->upstream.n > 0) {
        tl_put_text(out, ";upstream=");
        tl_put_span(out, service->upstream);
    }
    if (!out->full) {
        size_t length = out->n - length_at - 2;
        out->at[length_at] = (uint8_t)(length >> 8);
        out->at[length_at + 1] = (uint8_t)length;
    }
}

void tl_hello_put(tl_out *out, const tl_hello *hello)
{
    uint32_t numbers[NUMBERS];
    memcpy(numbers, &hello->limits, sizeof numbers);
    for (unsigned i = 0; i < NUMBERS; i++) {
        tl_put_u8(out, (uint8_t)(i + 1));
        tl_put_u16(out, 4);
        tl_put_u32(out, numbers[i]);
    }
    if (hello->features.n > 0) {
        put_field(out, TAG_FEATURES, hello->features);
    }
    if (hello->software.n > 0) {
        put_field(out, TAG_SOFTWARE, hello->software);
    }
    for (size_t i = 0; i < hello->service_count; i++) {
        put_service(out, &hello->services[i]);
    }
}
