/* The two things that are read of a certificate (RFC 5280, section 4.1). That it is genuine nobody asks here: the
 * gateway's HTTPS brought it, and only others will look at it. */
#include <string.h>

#include "pem_parts.h"
#include "towline/bytes.h"

enum { TAG_INTEGER = 0x02, TAG_UTC_TIME = 0x17, TAG_TIME = 0x18, TAG_SEQUENCE = 0x30, TAG_VERSION = 0xa0 };

/* The next value of that tag, moving behind it; DER's definite lengths, of two bytes at most. */
static bool take(tl_span *rest, uint8_t tag, tl_span *value)
{
    tl_span at = *rest;
    if (at.n < 2 || at.at[0] != tag) {
        return false;
    }
    size_t length = at.at[1], head = 2;
    if (length >= 0x80) {
        const size_t more = length & 0x7f;
        if (more == 0 || more > 2 || at.n < 2 + more) {
            return false;
        }
        length = more == 1 ? at.at[2] : tl_u16(at.at + 2);
        head += more;
    }
    (void)tl_take(&at, head);
    if (at.n < length) {
        return false;
    }
    *value = tl_take(&at, length);
    *rest = at;
    return true;
}

static bool digits(tl_span *rest, size_t n, unsigned *value)
{
    const tl_span text = tl_take(rest, n);
    *value = 0;
    for (size_t i = 0; i < text.n; i++) {
        if (text.at[i] < '0' || text.at[i] > '9') {
            return false;
        }
        *value = *value * 10 + (text.at[i] - '0');
    }
    return text.n == n;
}

/* Days from 1 January 1970 (proleptic Gregorian calendar); the year begins in March, so that a leap day is its
 * last one. */
static int64_t days(unsigned year, unsigned month, unsigned day)
{
    const unsigned y = month > 2 ? year : year - 1, m = month > 2 ? month - 3 : month + 9;
    return (int64_t)365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719468;
}

/* YYMMDDhhmmssZ until 2049, YYYYMMDDhhmmssZ from then on (section 4.1.2.5). */
static bool take_time(tl_span *rest, int64_t *seconds)
{
    unsigned year, month, day, hour, minute, second;
    tl_span text;
    const bool two = take(rest, TAG_UTC_TIME, &text);
    if ((!two && !take(rest, TAG_TIME, &text)) || !digits(&text, two ? 2 : 4, &year) || !digits(&text, 2, &month) ||
        !digits(&text, 2, &day) || !digits(&text, 2, &hour) || !digits(&text, 2, &minute) ||
        !digits(&text, 2, &second) || !tl_is(text, "Z")) {
        return false;
    }
    if (two) {
        year += year < 50 ? 2000 : 1900;
    }
    if (year < 1970 || month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 || minute > 59 || second > 60) {
        return false;
    }
    *seconds = ((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    return true;
}

/* The subjectPublicKeyInfo with its head. */
static bool is_for(tl_span rest, const uint8_t point[TL_P256_POINT])
{
    return rest.n >= TL_SPKI && memcmp(rest.at, tl_spki_head, TL_SPKI_HEAD) == 0 &&
           memcmp(rest.at + TL_SPKI_HEAD, point, TL_P256_POINT) == 0;
}

const char *tl_pem_read_certificate(tl_span pem, const uint8_t point[TL_P256_POINT], tl_out scratch,
                                    tl_validity *validity)
{
    tl_span rest, whole, part, times;
    if (!tl_pem_read(pem, "CERTIFICATE", scratch, &rest) || !take(&rest, TAG_SEQUENCE, &whole) ||
        !take(&whole, TAG_SEQUENCE, &rest)) {
        return "not a certificate";
    }
    (void)take(&rest, TAG_VERSION, &part);
    if (!take(&rest, TAG_INTEGER, &part) || !take(&rest, TAG_SEQUENCE, &part) || !take(&rest, TAG_SEQUENCE, &part) ||
        !take(&rest, TAG_SEQUENCE, &times) || !take(&rest, TAG_SEQUENCE, &part) ||
        !take_time(&times, &validity->from_s) || !take_time(&times, &validity->until_s)) {
        return "not a certificate";
    }
    return is_for(rest, point) ? NULL : "a certificate for another key";
}
