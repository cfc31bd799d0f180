/* Firmware images: the envelope in front of what the chip runs (docs/protocol/firmware-image-v1.md), and who may run
 * what. */
#ifndef TOWLINE_IMAGE_H
#define TOWLINE_IMAGE_H

#include "towline/crypto.h"
#include "towline/span.h"

#define TL_IMAGE_HEAD 256u
#define TL_IMAGE_SIGNED 192u  /* bytes of the head that the signature is over */
#define TL_IMAGE_KEYS 2u      /* the one in use, and the spare if that one is lost */
#define TL_HARDWARE_MAX 31u   /* characters */

typedef struct {
    uint32_t part[3]; /* major, minor, patch */
} tl_version;

/* What runs here, and what may come after it: made by the build. */
typedef struct {
    const char *hardware; /* the board's name: an image for another one is refused */
    tl_version version;
    uint32_t security; /* rises when an older image must never run again */
    /* Public halves of the keys that sign images; a place that begins with 0 is empty. */
    uint8_t key[TL_IMAGE_KEYS][TL_P256_POINT];
} tl_firmware;

typedef struct {
    uint16_t target;
    tl_version version;
    uint32_t security;
    uint32_t size; /* bytes behind the head */
    uint8_t digest[TL_SHA256];
} tl_image;

typedef struct {
    const tl_firmware *runs;
    const tl_crypto *crypto;
    uint16_t target;
    uint32_t largest;
    uint32_t floor; /* of `security`: the highest that ran here and was confirmed */
    bool force;     /* whoever stands before the device may have the same version again, or an older one */
} tl_image_rules;

/* NULL: it may be written, and `image` says what must come. Else why not (a literal of at most TL_WHY_MAX bytes). */
const char *tl_image_judge(const uint8_t head[TL_IMAGE_HEAD], const tl_image_rules *, tl_image *image);
/* < 0, 0, > 0: older, the same, newer. */
int tl_version_compare(const tl_version *one, const tl_version *other);
/* "1.2.3" */
bool tl_version_read(tl_span text, tl_version *);
/* As the build has them: keys in hexadecimal, `hardware` stays where it is. False, and no image is taken: the version is
 * none, or a key is; "" is no key. */
bool tl_firmware_read(tl_firmware *, const char *hardware, const char *version, uint32_t security, const char *key,
                      const char *spare);

#endif
