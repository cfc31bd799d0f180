/* The two things that are read of a certificate (RFC 5280, section 4.1). That it is genuine nobody asks here: the
 * gateway's HTTPS brought it, and only others will look at it. */
#include <string.h>

#include "pem_parts.h"
#include "towline/bytes.h"

enum { TAG_INTEGER = 0x02, TAG_UTC_TIME = 0x17, TAG_TIME = 0x18, TAG_SEQUENCE = 0x30, TAG_VERSION = 0xa0 };

/* The next value of that tag, moving behind it; DER's definite lengths, of two bytes at most. One that is cut is
 * what there is of it: whatever is missed in it is not found. */
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
    *value = tl_take(&at, length);
    *rest = at;
    return true;
}

/* Two digits; when they are none, more than any year has. */
static unsigned two_digits(tl_span *rest)
{
    const tl_span text = tl_take(rest, 2);
    const unsigned tens = text.n == 2 ? text.at[0] - (unsigned)'0' : 10;
    const unsigned ones = text.n == 2 ? text.at[1] - (unsigned)'0' : 10;
    return tens > 9 || ones > 9 ? UINT16_MAX : tens * 10 + ones;
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
    static const uint8_t least[] = {1, 1, 0, 0, 0}, most[] = {12, 31, 23, 59, 60};
    unsigned year, value[5];
    tl_span text;
    if (take(rest, TAG_UTC_TIME, &text)) {
        year = two_digits(&text);
        year += year < 50 ? 2000 : 1900;
    } else if (take(rest, TAG_TIME, &text)) {
        const unsigned century = two_digits(&text);
        year = century * 100 + two_digits(&text);
    } else {
        return false;
    }
    for (size_t i = 0; i < 5; i++) {
        value[i] = two_digits(&text);
        if (value[i] < least[i] || value[i] > most[i]) {
            return false;
        }
    }
    *seconds = ((days(year, value[0], value[1]) * 24 + value[2]) * 60 + value[3]) * 60 + value[4];
    return year >= 1970 && year <= 9999 && tl_is(text, "Z");
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
