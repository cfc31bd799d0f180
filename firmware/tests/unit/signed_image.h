/* Signed images for tests of what takes them. */
#ifndef TOWLINE_TEST_IMAGE_H
#define TOWLINE_TEST_IMAGE_H

#include "psa_crypto.h"
#include "towline/bytes.h"
#include "towline/image.h"

#include <string.h>

#define TEST_TARGET 0xF001u
#define TEST_HARDWARE "test-board"

/* The key's private half: any number that is one. */
static const uint8_t test_image_key[TL_P256_PRIVATE] = {[31] = 77};

static inline tl_firmware test_firmware(uint32_t patch, uint32_t security)
{
    tl_firmware runs = {TEST_HARDWARE, {{1, 0, patch}}, security, {{0}}};
    (void)tl_psa_crypto()->p256_public(test_image_key, runs.key[0]);
    return runs;
}

/* Writes head and binary; version 1.0.patch. */
static inline void test_image(tl_out *out, uint32_t patch, uint32_t security, tl_span binary)
{
    const tl_crypto *crypto = tl_psa_crypto();
    const tl_firmware runs = test_firmware(patch, security);
    uint8_t hardware[TL_HARDWARE_MAX + 1] = TEST_HARDWARE, digest[TL_SHA256], reserved[80] = {0};
    uint8_t *head = out->at + out->n;
    tl_put_text(out, "TWLF");
    tl_put_u16(out, 1);
    tl_put_u16(out, TL_IMAGE_HEAD);
    tl_put_u16(out, TEST_TARGET);
    tl_put_u16(out, 0);
    for (size_t i = 0; i < 3; i++) {
        tl_put_u32(out, runs.version.part[i]);
    }
    tl_put_u32(out, security);
    tl_put_u32(out, (uint32_t)binary.n);
    crypto->sha256(binary, digest);
    tl_put(out, digest, sizeof digest);
    tl_put(out, hardware, sizeof hardware);
    crypto->sha256((tl_span){runs.key[0], TL_P256_POINT}, digest);
    tl_put(out, digest, 16);
    tl_put(out, reserved, sizeof reserved);
    uint8_t signature[TL_P256_SIGNATURE] = {0};
    (void)crypto->p256_sign(test_image_key, (tl_span){head, TL_IMAGE_SIGNED}, signature);
    tl_put(out, signature, sizeof signature);
    tl_put_span(out, binary);
}

#endif
