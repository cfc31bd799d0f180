#include "protobuf.h"

#include "towline/bytes.h"

enum { VARINT = 0, FIXED64 = 1, LENGTH = 2, FIXED32 = 5 };

static bool take_varint(tl_span *rest, uint64_t *value)
{
    *value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        const tl_span byte = tl_take(rest, 1);
        if (byte.n == 0) {
            return false;
        }
        *value |= (uint64_t)(byte.at[0] & 0x7F) << shift;
        if (byte.at[0] < 0x80) {
            return true;
        }
    }
    return false;
}

static bool take_bytes(tl_span *rest, uint64_t n, tl_span *bytes)
{
    if (n > rest->n) {
        return false;
    }
    *bytes = tl_take(rest, (size_t)n);
    return true;
}

static bool take_field(tl_span *rest, tl_pb_field *field)
{
    uint64_t tag, n;
    if (!take_varint(rest, &tag) || tag >> 3 == 0 || tag >> 3 > UINT32_MAX) {
        return false;
    }
    *field = (tl_pb_field){.number = (uint32_t)(tag >> 3)};
    switch (tag & 7) {
    case VARINT:
        return take_varint(rest, &field->value);
    case LENGTH:
        field->is_bytes = true;
        return take_varint(rest, &n) && take_bytes(rest, n, &field->bytes);
    case FIXED64:
        return take_bytes(rest, 8, &field->bytes);
    case FIXED32:
        return take_bytes(rest, 4, &field->bytes);
    default:
        return false;
    }
}

bool tl_pb_next(tl_span *rest, tl_pb_field *field, bool *broken)
{
    if (rest->n == 0) {
        return false;
    }
    *broken = !take_field(rest, field);
    return !*broken;
}

static bool find(tl_span message, uint32_t number, tl_pb_field *found)
{
    tl_pb_field field;
    bool broken = false;
    *found = (tl_pb_field){0};
    while (tl_pb_next(&message, &field, &broken)) {
        if (field.number == number) {
            *found = field;
        }
    }
    return !broken;
}

bool tl_pb_bytes(tl_span message, uint32_t number, tl_span *bytes)
{
    tl_pb_field field;
    const bool whole = find(message, number, &field);
    *bytes = field.bytes;
    return whole && field.is_bytes;
}

bool tl_pb_number(tl_span message, uint32_t number, uint64_t *value)
{
    tl_pb_field field;
    const bool whole = find(message, number, &field);
    *value = field.value;
    return whole && !field.is_bytes;
}

static void put_varint(tl_out *out, uint64_t value)
{
    for (; value >= 0x80; value >>= 7) {
        tl_put_u8(out, (uint8_t)(value | 0x80));
    }
    tl_put_u8(out, (uint8_t)value);
}

void tl_pb_put_number(tl_out *out, uint32_t number, uint64_t value)
{
    if (value != 0) { /* proto3 leaves it out */
        put_varint(out, (uint64_t)number << 3 | VARINT);
        put_varint(out, value);
    }
}

void tl_pb_put_bytes(tl_out *out, uint32_t number, tl_span bytes)
{
    put_varint(out, (uint64_t)number << 3 | LENGTH);
    put_varint(out, bytes.n);
    tl_put_span(out, bytes);
}
