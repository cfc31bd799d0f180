#include "towline/settings.h"

#include "towline/bytes.h"
#include "towline/crc.h"

#include <string.h>

/* magic, format, sequence; then fields (tag, length, bytes); then the CRC of all that */
#define MAGIC 0x5453u /* TS */
#define FORMAT 1u
#define HEAD 7u
#define CRC 4u
#define RECORD_MAX 512u

static const char *const KEY[2] = {"settings.0", "settings.1"};

typedef struct {
    uint8_t tag;     /* a tl_setting */
    bool text;
    uint16_t offset; /* in tl_settings */
    uint16_t least, most; /* a text's length in bytes, or the number */
    uint16_t usual;
} field;

#define PLACE(member) (uint16_t)offsetof(tl_settings, member)

static const field FIELDS[] = {
    {TL_SETTING_NAME, true, PLACE(name), 0, TL_SETTING_NAME_MAX, 0},
    {TL_SETTING_SSID, true, PLACE(ssid), 0, TL_WIFI_SSID_MAX, 0},
    {TL_SETTING_PASSWORD, true, PLACE(password), 0, TL_WIFI_PASSWORD_MAX, 0},
    {TL_SETTING_GATEWAY, true, PLACE(gateway), 0, TL_SETTING_URL_MAX, 0},
    {TL_SETTING_TOKEN, true, PLACE(token), 0, TL_SETTING_TOKEN_MAX, 0},
    {TL_SETTING_SUPPORT, false, PLACE(support), 0, 1, 1},
    {TL_SETTING_LOG_LEVEL, false, PLACE(log_level), TL_LOG_ERROR, TL_LOG_DEBUG, TL_LOG_INFO},
    {TL_SETTING_KEEPALIVE_S, false, PLACE(keepalive_s), TL_KEEPALIVE_LEAST_S, TL_KEEPALIVE_MOST_S, 4},
    {TL_SETTING_REPORT_S, false, PLACE(report_s), TL_REPORT_LEAST_S, TL_REPORT_MOST_S, 60},
};
#define FIELD_COUNT (sizeof FIELDS / sizeof FIELDS[0])

static const field *field_of(unsigned tag)
{
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        if (FIELDS[i].tag == tag) {
            return &FIELDS[i];
        }
    }
    return NULL;
}

static char *text_of(const tl_settings *s, const field *f)
{
    return (char *)(uintptr_t)s + f->offset;
}

static uint16_t number_of(const tl_settings *s, const field *f)
{
    uint16_t number;
    memcpy(&number, text_of(s, f), sizeof number);
    return number;
}

static void put_number(tl_settings *s, const field *f, uint16_t number)
{
    memcpy(text_of(s, f), &number, sizeof number);
}

void tl_settings_default(tl_settings *s)
{
    memset(s, 0, sizeof *s);
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        if (!FIELDS[i].text) {
            put_number(s, &FIELDS[i], FIELDS[i].usual);
        }
    }
}

const char *tl_settings_set_text(tl_settings *s, tl_setting which, tl_span text)
{
    const field *f = field_of(which);
    if (f == NULL || !f->text) {
        return "no such setting";
    }
    if (text.n > f->most) {
        return "too long";
    }
    for (size_t i = 0; i < text.n; i++) {
        if (text.at[i] < ' ' || text.at[i] == 0x7F) { /* no control characters: they would reach logs and requests */
            return "control characters";
        }
    }
    if (!tl_is_utf8(text)) {
        return "not UTF-8";
    }
    char *to = text_of(s, f);
    memset(to, 0, (size_t)f->most + 1);
    if (text.n > 0) {
        memcpy(to, text.at, text.n);
    }
    return NULL;
}

const char *tl_settings_set_number(tl_settings *s, tl_setting which, int64_t number)
{
    const field *f = field_of(which);
    if (f == NULL || f->text) {
        return "no such setting";
    }
    if (number < f->least || number > f->most) {
        return "out of range";
    }
    put_number(s, f, (uint16_t)number);
    return NULL;
}

/* --- the record --- */

static void write_record(const tl_settings *s, uint32_t sequence, tl_out *out)
{
    tl_put_u16(out, MAGIC);
    tl_put_u8(out, FORMAT);
    tl_put_u32(out, sequence);
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        const field *f = &FIELDS[i];
        tl_put_u8(out, f->tag);
        if (f->text) {
            const tl_span text = tl_text(text_of(s, f));
            tl_put_u8(out, (uint8_t)text.n);
            tl_put_span(out, text);
        } else {
            tl_put_u8(out, sizeof(uint16_t));
            tl_put_u16(out, number_of(s, f));
        }
    }
    tl_put_u32(out, tl_crc32(0, (tl_span){out->at, out->n}));
}

/* Whether the slot has a record that holds; its fields are in `room`, behind HEAD. */
static bool read_slot(const tl_port_kv *kv, unsigned slot, tl_out *room, uint32_t *sequence)
{
    room->n = 0;
    if (!kv->get(kv->with, KEY[slot], room) || room->n < HEAD + CRC || tl_u16(room->at) != MAGIC ||
        room->at[2] != FORMAT) {
        return false;
    }
    room->n -= CRC;
    *sequence = tl_u32(room->at + 3);
    return tl_u32(room->at + room->n) == tl_crc32(0, (tl_span){room->at, room->n});
}

/* What is no value of ours (another version's bounds were wider) leaves the default. */
static void take_fields(tl_settings *s, tl_span fields)
{
    while (fields.n >= 2) {
        const tl_span head = tl_take(&fields, 2);
        const tl_span value = tl_take(&fields, head.at[1]);
        const field *f = field_of(head.at[0]);
        if (f == NULL || value.n != head.at[1]) {
            continue;
        }
        if (f->text) {
            (void)tl_settings_set_text(s, (tl_setting)f->tag, value);
        } else if (value.n == sizeof(uint16_t)) {
            (void)tl_settings_set_number(s, (tl_setting)f->tag, tl_u16(value.at));
        }
    }
}

bool tl_settings_load(tl_settings_store *store, const tl_port_kv *kv, tl_settings *s)
{
    uint8_t bytes[RECORD_MAX];
    tl_out room = {bytes, 0, sizeof bytes, false};
    uint32_t sequence[2] = {0, 0};
    const bool first = read_slot(kv, 0, &room, &sequence[0]);
    const bool second = read_slot(kv, 1, &room, &sequence[1]);
    /* The difference, so that the numbers may run over. */
    const uint8_t slot = second && (!first || (int32_t)(sequence[1] - sequence[0]) > 0);
    *store = (tl_settings_store){kv, sequence[slot], slot};
    tl_settings_default(s);
    if (!read_slot(kv, slot, &room, &sequence[slot])) {
        return false;
    }
    take_fields(s, (tl_span){room.at + HEAD, room.n - HEAD});
    return true;
}

bool tl_settings_commit(tl_settings_store *store, const tl_settings *s)
{
    uint8_t bytes[RECORD_MAX];
    tl_out out = {bytes, 0, sizeof bytes, false};
    const uint8_t slot = store->slot ^ 1u;
    write_record(s, store->sequence + 1, &out);
    const tl_port_kv *kv = store->kv;
    if (out.full || !kv->set(kv->with, KEY[slot], (tl_span){bytes, out.n}) || !kv->commit(kv->with)) {
        return false;
    }
    store->slot = slot;
    store->sequence++;
    return true;
}
