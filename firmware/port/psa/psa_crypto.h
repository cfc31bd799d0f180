/* The crypto group by PSA: mbedTLS 2.28 (Debian), 3.6 (ESP-IDF 5.5) and 4 (ESP-IDF 6). */
#ifndef TOWLINE_PSA_CRYPTO_H
#define TOWLINE_PSA_CRYPTO_H

#include "towline/crypto.h"

/* The functions, once PSA has started; NULL when it does not. Once, before any task calls one of them. */
const tl_crypto *tl_psa_crypto(void);

#endif
