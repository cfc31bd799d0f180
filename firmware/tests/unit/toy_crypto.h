/* Randomness that can be foreseen, and a digest that is none: for tests of what is built upon them. */
#ifndef TOWLINE_TOY_CRYPTO_H
#define TOWLINE_TOY_CRYPTO_H

#include "towline/crypto.h"

static uint32_t toy_state = 1;

static void toy_random(uint8_t *to, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        toy_state = toy_state * 1664525u + 1013904223u;
        to[i] = (uint8_t)(toy_state >> 24);
    }
}

static void toy_sha256(tl_span message, uint8_t digest[TL_SHA256])
{
    for (size_t i = 0; i < TL_SHA256; i++) {
        uint32_t sum = 2166136261u + (uint32_t)i;
        for (size_t k = 0; k < message.n; k++) {
            sum = (sum ^ message.at[k]) * 16777619u;
        }
        digest[i] = (uint8_t)(sum >> 16);
    }
}

static const tl_crypto TOY_CRYPTO = {.random = toy_random, .sha256 = toy_sha256};

#endif
