/* image.json: every head is judged as it says. */
#include "check.h"
#include "psa_crypto.h"
#include "towline/bytes.h"
#include "towline/image.h"
#include "vectors.h"

#define CASES_AT_LEAST 50u

static void heads_are_judged_as_the_vectors_say(void)
{
    const vector_image_device *device = &vector_image_runs;
    tl_firmware runs = {device->hardware, {{0}}, device->security, {{0}}};
    memcpy(runs.version.part, device->version, sizeof runs.version.part);
    for (size_t i = 0; i < TL_IMAGE_KEYS; i++) {
        CHECK(device->keys[i].n == TL_P256_POINT);
        memcpy(runs.key[i], device->keys[i].at, TL_P256_POINT);
    }
    CHECK(vector_images_count >= CASES_AT_LEAST);
    for (size_t i = 0; i < vector_images_count; i++) {
        const vector_image *one = &vector_images[i];
        const tl_image_rules rules = {
            &runs, tl_psa_crypto(), (uint16_t)device->target, device->largest, device->floor, one->force,
        };
        tl_image image;
        CHECK_NAMED(one->head.n == TL_IMAGE_HEAD, one->name);
        const char *why = tl_image_judge(one->head.at, &rules, &image);
        CHECK_NAMED((why == NULL) == (one->why == NULL), one->name);
        CHECK_NAMED(why == NULL || one->why == NULL || strcmp(why, one->why) == 0, one->name);
        if (why == NULL) {
            CHECK_NAMED(image.size == tl_u32(one->head.at + 28), one->name);
            CHECK_NAMED(memcmp(image.digest, one->head.at + 32, TL_SHA256) == 0, one->name);
        }
    }
}

/* A place for a key that is empty lets nobody in, nor does a device without any. */
static void without_a_key_nothing_runs(void)
{
    const vector_image_device *device = &vector_image_runs;
    const tl_firmware runs = {device->hardware, {{0}}, 0, {{0}}};
    const tl_image_rules rules = {&runs, tl_psa_crypto(), (uint16_t)device->target, device->largest, 0, true};
    for (size_t i = 0; i < vector_images_count; i++) {
        tl_image image;
        CHECK_NAMED(tl_image_judge(vector_images[i].head.at, &rules, &image) != NULL, vector_images[i].name);
    }
    uint8_t head[TL_IMAGE_HEAD];
    tl_image image;
    memcpy(head, vector_images[0].head.at, sizeof head);
    tl_psa_crypto()->sha256((tl_span){runs.key[0], TL_P256_POINT}, head + 100);
    memmove(head + 96, head + 100, 16); /* the empty place, by its name */
    CHECK(strstr(tl_image_judge(head, &rules, &image), "key") != NULL);
}

int main(void)
{
    static const check_test tests[] = {
        CHECK_TEST(heads_are_judged_as_the_vectors_say),
        CHECK_TEST(without_a_key_nothing_runs),
    };
    return tl_psa_crypto() != NULL ? CHECK_ALL(tests) : 1;
}
