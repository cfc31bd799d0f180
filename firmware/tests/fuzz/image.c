/* Any bytes as an upload, with signatures and digests that all hold; as a record of settings, after their CRC; and as
 * what lies in the flash behind a ring. The first byte says which. */
#include "exact.h"

#include "towline/bytes.h"
#include "towline/crc.h"
#include "towline/flash_ring.h"
#include "towline/ota.h"
#include "towline/settings.h"

#define TARGET 5u
#define LARGEST 4096u
#define SECTORS 2u

/* --- an upload --- */

static size_t written, announced;
static bool writing;

static bool begin(void *with, uint32_t size)
{
    (void)with;
    must(!writing && size > 0 && size <= LARGEST);
    writing = true;
    announced = size;
    written = 0;
    return true;
}

static bool write_piece(void *with, tl_span bytes)
{
    (void)with;
    must(writing && bytes.n > 0 && bytes.n <= announced - written);
    written += bytes.n;
    return true;
}

static bool finish(void *with)
{
    (void)with;
    must(writing && written == announced);
    writing = false;
    return true;
}

static void give_up(void *with)
{
    (void)with;
    must(writing);
    writing = false;
}

static bool not_on_trial(void *with)
{
    (void)with;
    return false;
}

static bool nothing_kept(void *with, const char *key, tl_out *value)
{
    (void)with;
    (void)key;
    (void)value;
    return false;
}

static bool kept(void *with, const char *key, tl_span value)
{
    (void)with;
    (void)key;
    (void)value;
    return true;
}

static bool committed(void *with)
{
    (void)with;
    return true;
}

static void digest(tl_span message, uint8_t to[TL_SHA256])
{
    (void)message;
    memset(to, 0, TL_SHA256);
}

static void digest_begin(tl_sha256 *state)
{
    memset(state, 0, sizeof *state);
}

static void digest_add(tl_sha256 *state, tl_span part)
{
    state->room[0] += part.n;
}

static void digest_end(tl_sha256 *state, uint8_t to[TL_SHA256])
{
    (void)state;
    memset(to, 0, TL_SHA256);
}

static bool holds(const uint8_t point[TL_P256_POINT], tl_span message, const uint8_t signature[TL_P256_SIGNATURE])
{
    (void)point;
    (void)signature;
    return message.n == TL_IMAGE_SIGNED;
}

static void upload(tl_span bytes)
{
    static const tl_crypto trusting = {
        .sha256 = digest, .sha256_begin = digest_begin, .sha256_add = digest_add, .sha256_end = digest_end, .p256_verify = holds};
    static const tl_port_ota port = {.target = TARGET, .largest = LARGEST, .begin = begin, .write = write_piece,
                                     .finish = finish, .abort = give_up, .on_trial = not_on_trial};
    static const tl_port_kv kv = {.get = nothing_kept, .set = kept, .commit = committed};
    static const tl_firmware runs = {"board", {{1, 2, 3}}, 1, {{4}}};
    const tl_ota_means means = {&port, &kv, &trusting, &runs, 1, 2};
    tl_ota ota;
    const uint8_t each = bytes.n > 0 ? bytes.at[0] : 0;
    (void)tl_take(&bytes, 1);
    tl_ota_open(&ota, &means);
    const char *why = tl_ota_begin(&ota, bytes.n, each % 2 == 0);
    while (why == NULL && bytes.n > 0) {
        why = tl_ota_add(&ota, tl_take(&bytes, each + 1u));
    }
    if (why == NULL) {
        why = tl_ota_end(&ota);
    }
    must(!writing && ota.state != TL_OTA_RECEIVING && (why == NULL) == (ota.state == TL_OTA_VERIFIED));
}

/* --- a record of settings --- */

static uint8_t record[600];
static size_t record_n;

static bool kept_record(void *with, const char *key, tl_out *value)
{
    (void)with;
    (void)key;
    if (record_n > value->cap - value->n) {
        return false;
    }
    tl_put(value, record, record_n);
    return true;
}

static void settings(tl_span bytes)
{
    const tl_port_kv kv = {.get = kept_record, .set = kept, .commit = committed};
    tl_settings_store store;
    tl_settings s;
    tl_out out = {record, 0, sizeof record, false};
    tl_put_u16(&out, 0x5453);
    tl_put_u8(&out, 1);
    tl_put_u32(&out, 7);
    tl_put_span(&out, bytes);
    tl_put_u32(&out, tl_crc32(0, (tl_span){record, out.n}));
    record_n = out.n;
    (void)tl_settings_load(&store, &kv, &s);
    must(s.support <= 1 && s.log_level <= TL_LOG_DEBUG && s.keepalive_s <= TL_KEEPALIVE_MOST_S && s.report_s >= TL_REPORT_LEAST_S);
    must(memchr(s.gateway, 0, sizeof s.gateway) != NULL && memchr(s.ssid, 0, sizeof s.ssid) != NULL);
    must(tl_settings_commit(&store, &s));
}

/* --- what lies in the flash --- */

static uint8_t flash[SECTORS * TL_FLASH_SECTOR];

static bool read_flash(void *with, uint32_t at, uint8_t *to, size_t n)
{
    (void)with;
    must(at <= sizeof flash && n <= sizeof flash - at);
    memcpy(to, flash + at, n);
    return true;
}

static bool write_flash(void *with, uint32_t at, tl_span bytes)
{
    (void)with;
    must(at <= sizeof flash && bytes.n <= sizeof flash - at);
    for (size_t i = 0; i < bytes.n; i++) {
        flash[at + i] &= bytes.at[i];
    }
    return true;
}

static bool erase_flash(void *with, uint32_t at)
{
    (void)with;
    must(at % TL_FLASH_SECTOR == 0 && at < sizeof flash);
    memset(flash + at, 0xFF, TL_FLASH_SECTOR);
    return true;
}

static void tell(void *owner, const tl_ring_record *told)
{
    uint8_t room[TL_RING_RECORD_MAX];
    tl_out out = {room, 0, sizeof room, false};
    must(told->at % TL_FLASH_SECTOR >= TL_RING_SECTOR_HEAD && told->n <= TL_RING_RECORD_MAX);
    must(tl_ring_read(owner, told, &out) && out.n == told->n);
}

/* Behind two sector heads that hold: records of which the CRC is set right, where one would be looked at. */
static void ring(tl_span bytes)
{
    static const tl_port_flash port = {.size = sizeof flash, .read = read_flash, .write = write_flash, .erase = erase_flash};
    tl_ring r;
    memset(flash, 0xFF, sizeof flash);
    for (uint32_t sector = 0; sector < SECTORS; sector++) {
        tl_out head = {flash + sector * TL_FLASH_SECTOR, 0, TL_RING_SECTOR_HEAD, false};
        tl_put_u32(&head, 0x544C5231);
        tl_put_u32(&head, sector + 1);
        tl_put_u32(&head, tl_crc32(0, (tl_span){head.at, 8}));
        const tl_span part = tl_take(&bytes, TL_FLASH_SECTOR - TL_RING_SECTOR_HEAD);
        uint8_t *at = head.at + TL_RING_SECTOR_HEAD, *end = head.at + TL_FLASH_SECTOR;
        if (part.n > 0) {
            memcpy(at, part.at, part.n);
        }
        while ((size_t)(end - at) > TL_RING_RECORD_HEAD && tl_u16(at) <= (size_t)(end - at) - TL_RING_RECORD_HEAD) {
            tl_out crc = {at + 4, 0, 4, false};
            tl_put_u32(&crc, tl_crc32(tl_crc32(0, (tl_span){at, 3}), (tl_span){at + TL_RING_RECORD_HEAD, tl_u16(at)}));
            at += TL_RING_RECORD_HEAD + tl_u16(at);
        }
    }
    must(tl_ring_open(&r, &port, 0, SECTORS, tell, &r));
    tl_ring_record made;
    const tl_ring_result result = tl_ring_append(&r, 1, tl_text("more"), (tl_span){NULL, 0}, &made);
    must(result != TL_RING_BROKEN);
    if (result == TL_RING_DONE) {
        tell(&r, &made);
        must(tl_ring_drop(&r, &made) && tl_ring_drop(&r, &made));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = exact(data, size);
    tl_span rest = {copy, size};
    const uint8_t which = size > 0 ? copy[0] % 3 : 0;
    (void)tl_take(&rest, 1);
    writing = false;
    if (which == 0) {
        upload(rest);
    } else if (which == 1) {
        settings(rest);
    } else {
        ring(rest);
    }
    free(copy);
    return 0;
}
