#include "towline/image.h"

#include "towline/bytes.h"

#include <string.h>

#define MAGIC 0x54574C46u /* TWLF */
#define FORMAT 1u

/* Where things stand in the head. */
enum {
    AT_FORMAT = 4,
    AT_LENGTH = 6,
    AT_TARGET = 8,
    AT_VERSION = 12,
    AT_SECURITY = 24,
    AT_SIZE = 28,
    AT_DIGEST = 32,
    AT_HARDWARE = 64,
    AT_KEY = 96,
    KEY_ID = 16,
    AT_RESERVED = AT_KEY + KEY_ID
};

static bool all_zero(const uint8_t *at, size_t n)
{
    while (n > 0 && at[n - 1] == 0) {
        n--;
    }
    return n == 0;
}

static bool is_head(const uint8_t *head)
{
    return tl_u32(head) == MAGIC && tl_u16(head + AT_FORMAT) == FORMAT && tl_u16(head + AT_LENGTH) == TL_IMAGE_HEAD;
}

/* The key that the head names; NULL: none of ours. */
static const uint8_t *key_of(const uint8_t *head, const tl_image_rules *rules)
{
    for (size_t i = 0; i < TL_IMAGE_KEYS; i++) {
        const uint8_t *point = rules->runs->key[i];
        uint8_t digest[TL_SHA256];
        if (point[0] == 0) {
            continue;
        }
        rules->crypto->sha256((tl_span){point, TL_P256_POINT}, digest);
        if (memcmp(digest, head + AT_KEY, KEY_ID) == 0) {
            return point;
        }
    }
    return NULL;
}

static bool for_this_hardware(const uint8_t *head, const char *hardware)
{
    const size_t n = strlen(hardware);
    return n <= TL_HARDWARE_MAX && memcmp(head + AT_HARDWARE, hardware, n) == 0 &&
           all_zero(head + AT_HARDWARE + n, TL_HARDWARE_MAX + 1 - n);
}

static void read_head(const uint8_t *head, tl_image *image)
{
    image->target = tl_u16(head + AT_TARGET);
    for (size_t i = 0; i < 3; i++) {
        image->version.part[i] = tl_u32(head + AT_VERSION + 4 * i);
    }
    image->security = tl_u32(head + AT_SECURITY);
    image->size = tl_u32(head + AT_SIZE);
    memcpy(image->digest, head + AT_DIGEST, TL_SHA256);
}

static const char *judge_signed(const uint8_t *head, const tl_image_rules *rules, const tl_image *image)
{
    if (!all_zero(head + AT_TARGET + 2, 2) || !all_zero(head + AT_RESERVED, TL_IMAGE_SIGNED - AT_RESERVED)) {
        return "It asks for more than this firmware knows.";
    }
    if (image->target != rules->target) {
        return "It is for another chip.";
    }
    if (!for_this_hardware(head, rules->runs->hardware)) {
        return "It is for other hardware.";
    }
    if (image->size == 0 || image->size > rules->largest) {
        return "It does not fit.";
    }
    if (image->security < rules->floor || image->security < rules->runs->security) {
        return "Its security version is too old.";
    }
    if (!rules->force && tl_version_compare(&image->version, &rules->runs->version) <= 0) {
        return "It is not newer than what runs here.";
    }
    return NULL;
}

/* Nothing of a head counts before its signature. */
const char *tl_image_judge(const uint8_t head[TL_IMAGE_HEAD], const tl_image_rules *rules, tl_image *image)
{
    if (!is_head(head)) {
        return "It is no firmware image.";
    }
    const uint8_t *point = key_of(head, rules);
    if (point == NULL) {
        return "It was signed with a key that is not known here.";
    }
    if (!rules->crypto->p256_verify(point, (tl_span){head, TL_IMAGE_SIGNED}, head + TL_IMAGE_SIGNED)) {
        return "Its signature does not hold.";
    }
    read_head(head, image);
    return judge_signed(head, rules, image);
}

int tl_version_compare(const tl_version *one, const tl_version *other)
{
    for (size_t i = 0; i < 3; i++) {
        if (one->part[i] != other->part[i]) {
            return one->part[i] < other->part[i] ? -1 : 1;
        }
    }
    return 0;
}

/* One of a version's numbers, up to `end` or the end of the text. */
static bool read_number(tl_span *text, uint32_t *number)
{
    const tl_span digits = tl_split(text, '.');
    uint64_t value = 0;
    for (size_t i = 0; i < digits.n; i++) {
        const uint8_t digit = (uint8_t)(digits.at[i] - '0');
        value = value * 10 + digit;
        if (digit > 9 || value > UINT32_MAX) {
            return false;
        }
    }
    *number = (uint32_t)value;
    return digits.n > 0;
}

bool tl_version_read(tl_span text, tl_version *version)
{
    return read_number(&text, &version->part[0]) && read_number(&text, &version->part[1]) &&
           read_number(&text, &version->part[2]) && text.n == 0;
}

static bool read_key(const char *hex, uint8_t *point)
{
    static const char DIGITS[] = "0123456789abcdef";
    const size_t n = strlen(hex);
    memset(point, 0, TL_P256_POINT);
    for (size_t i = 0; i < n; i++) {
        const char *digit = memchr(DIGITS, hex[i], 16);
        if (digit == NULL || n != (size_t)2 * TL_P256_POINT) {
            return false;
        }
        point[i / 2] = (uint8_t)(point[i / 2] << 4 | (digit - DIGITS));
    }
    return true;
}

bool tl_firmware_read(tl_firmware *runs, const char *hardware, const char *version, uint32_t security, const char *key,
                      const char *spare)
{
    runs->hardware = hardware;
    runs->security = security;
    return tl_version_read(tl_text(version), &runs->version) && read_key(key, runs->key[0]) &&
           read_key(spare, runs->key[1]);
}
