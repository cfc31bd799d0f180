#include "towline/pem.h"

#include <string.h>

#include "pem_parts.h"
#include "towline/base64.h"
#include "towline/bytes.h"

#define LINE_BYTES 48u /* 64 characters */

const uint8_t tl_spki_head[TL_SPKI_HEAD] = {0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01,
                                            0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00};

/* --- armour --- */

static void put_edge(tl_out *out, const char *edge, const char *label)
{
    tl_put_text(out, "-----");
    tl_put_text(out, edge);
    tl_put_text(out, label);
    tl_put_text(out, "-----\n");
}

void tl_pem_put(tl_out *out, const char *label, tl_span der)
{
    put_edge(out, "BEGIN ", label);
    while (der.n > 0) {
        tl_put_base64(out, tl_take(&der, LINE_BYTES));
        tl_put_u8(out, '\n');
    }
    put_edge(out, "END ", label);
}

/* Moves behind "-----BEGIN label-----" or "-----END label-----". */
static bool take_edge(tl_span *rest, const char *edge, const char *label)
{
    uint8_t room[64];
    tl_out wanted = {room, 0, sizeof room, false};
    put_edge(&wanted, edge, label);
    wanted.n--; /* without the line's end */
    return !wanted.full && tl_same(tl_take(rest, wanted.n), (tl_span){room, wanted.n});
}

static bool is_line_end(uint8_t c)
{
    return c == '\n' || c == '\r';
}

bool tl_pem_read(tl_span pem, const char *label, tl_out scratch, tl_span *der)
{
    if (!take_edge(&pem, "BEGIN ", label)) {
        return false;
    }
    bool padded = false;
    while (pem.n > 0 && *pem.at != '-') {
        const uint8_t c = *tl_take(&pem, 1).at;
        if (is_line_end(c)) {
            continue;
        }
        if (c == '_' || (padded && c != '=')) { /* '-' ends the text: no letter of the URL's alphabet comes through */
            return false;
        }
        padded = c == '=';
        if (!padded) {
            tl_put_u8(&scratch, c == '+' ? '-' : c == '/' ? '_' : c);
        }
    }
    const size_t letters = scratch.n;
    if (scratch.full || !take_edge(&pem, "END ", label)) {
        return false;
    }
    scratch.n = 0; /* each byte is written behind what was read already */
    if (!tl_base64url_decode((tl_span){scratch.at, letters}, &scratch)) {
        return false;
    }
    *der = (tl_span){scratch.at, scratch.n};
    return true;
}

/* --- public keys --- */

static void put_spki(tl_out *out, const uint8_t point[TL_P256_POINT])
{
    tl_put(out, tl_spki_head, TL_SPKI_HEAD);
    tl_put(out, point, TL_P256_POINT);
}

void tl_key_id(const tl_crypto *crypto, const uint8_t point[TL_P256_POINT], uint8_t id[TL_KEY_ID])
{
    uint8_t spki[TL_SPKI], digest[TL_SHA256];
    tl_out out = {spki, 0, sizeof spki, false};
    put_spki(&out, point);
    crypto->sha256((tl_span){spki, out.n}, digest);
    memcpy(id, digest, TL_KEY_ID);
}

bool tl_pem_read_public(tl_span pem, uint8_t point[TL_P256_POINT])
{
    uint8_t room[4 * (TL_SPKI + 2) / 3];
    tl_span der;
    if (!tl_pem_read(pem, "PUBLIC KEY", (tl_out){room, 0, sizeof room, false}, &der) || der.n != TL_SPKI ||
        memcmp(der.at, tl_spki_head, TL_SPKI_HEAD) != 0) {
        return false;
    }
    memcpy(point, der.at + TL_SPKI_HEAD, TL_P256_POINT);
    return true;
}

/* --- the private key: SEQUENCE { 0, SEQUENCE { ecPublicKey, prime256v1 }, OCTET STRING { SEQUENCE { 1, OCTET STRING
 * number, [1] BIT STRING { point (RFC 5958, RFC 5915) --- */

static const uint8_t PRIVATE_HEAD[] = {0x30, 0x81, 0x87, 0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86,
                                       0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d,
                                       0x03, 0x01, 0x07, 0x04, 0x6d, 0x30, 0x6b, 0x02, 0x01, 0x01, 0x04, 0x20};
static const uint8_t PRIVATE_POINT[] = {0xa1, 0x44, 0x03, 0x42, 0x00};

void tl_pem_put_private(tl_out *out, const uint8_t key[TL_P256_PRIVATE], const uint8_t point[TL_P256_POINT])
{
    uint8_t room[sizeof PRIVATE_HEAD + TL_P256_PRIVATE + sizeof PRIVATE_POINT + TL_P256_POINT];
    tl_out der = {room, 0, sizeof room, false};
    tl_put(&der, PRIVATE_HEAD, sizeof PRIVATE_HEAD);
    tl_put(&der, key, TL_P256_PRIVATE);
    tl_put(&der, PRIVATE_POINT, sizeof PRIVATE_POINT);
    tl_put(&der, point, TL_P256_POINT);
    tl_pem_put(out, "PRIVATE KEY", (tl_span){room, der.n});
}

/* --- the request: SEQUENCE { info, SEQUENCE { ecdsa-with-SHA256 }, BIT STRING { SEQUENCE { r, s; info: SEQUENCE { 0,
 * CN=towline device, key, [0] without attributes --- */

static const uint8_t INFO_HEAD[] = {0x30, 0x7b, 0x02, 0x01, 0x00, 0x30, 0x19, 0x31, 0x17, 0x30, 0x15,
                                    0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, 0x0e, 't',  'o',  'w',  'l',
                                    'i',  'n',  'e',  ' ',  'd',  'e',  'v',  'i',  'c',  'e'};
#define INFO (sizeof INFO_HEAD + TL_SPKI + 2u)
static const uint8_t SIGNED_BY[] = {0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02};
#define REQUEST_MAX (3u + INFO + sizeof SIGNED_BY + 5u + 2u * 35u)

/* An INTEGER: no leading zeros but one before a first bit that is set. */
static void put_number(tl_out *out, tl_span number)
{
    while (number.n > 1 && *number.at == 0) {
        (void)tl_take(&number, 1);
    }
    const bool high = *number.at >= 0x80;
    tl_put_u8(out, 0x02);
    tl_put_u8(out, (uint8_t)(number.n + high));
    if (high) {
        tl_put_u8(out, 0);
    }
    tl_put_span(out, number);
}

static void put_signature(tl_out *out, const uint8_t signature[TL_P256_SIGNATURE])
{
    tl_put(out, (const uint8_t[]){0x03, 0, 0x00, 0x30, 0}, 5);
    const size_t from = out->n;
    put_number(out, (tl_span){signature, TL_P256_SIGNATURE / 2});
    put_number(out, (tl_span){signature + TL_P256_SIGNATURE / 2, TL_P256_SIGNATURE / 2});
    out->at[from - 1] = (uint8_t)(out->n - from);
    out->at[from - 4] = (uint8_t)(out->n - from + 3);
}

bool tl_pem_put_request(tl_out *out, const tl_crypto *crypto, const uint8_t key[TL_P256_PRIVATE],
                        const uint8_t point[TL_P256_POINT])
{
    uint8_t room[REQUEST_MAX], signature[TL_P256_SIGNATURE];
    tl_out der = {room, 0, sizeof room, false};
    tl_put(&der, (const uint8_t[]){0x30, 0x81, 0}, 3);
    tl_put(&der, INFO_HEAD, sizeof INFO_HEAD);
    put_spki(&der, point);
    tl_put(&der, (const uint8_t[]){0xa0, 0x00}, 2);
    if (!crypto->p256_sign(key, (tl_span){room + 3, INFO}, signature)) {
        return false;
    }
    tl_put(&der, SIGNED_BY, sizeof SIGNED_BY);
    put_signature(&der, signature);
    room[2] = (uint8_t)(der.n - 3);
    tl_pem_put(out, "CERTIFICATE REQUEST", (tl_span){room, der.n});
    return !out->full;
}
