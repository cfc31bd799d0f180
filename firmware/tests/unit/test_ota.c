#include "towline/ota.h"

#include "check.h"
#include "nvs.h"
#include "signed_image.h"

#define LARGEST 5000u
#define STEADY 60u
#define PATIENCE 300u

/* Two slots in memory, and a boot loader as ESP-IDF's: an image that was not marked valid boots once. */
typedef struct {
    tl_port_ota port;
    uint8_t slot[2][LARGEST];
    uint32_t n, size;
    uint8_t boots; /* next */
    bool writing, fresh, trial, restarted;
    bool begin_fails, write_fails, finish_fails, mark_fails;
    unsigned begun, aborted;
} chip;

static chip c;
static nvs kv;
static tl_ota ota;
static tl_firmware runs;
static uint8_t binary[2000], image[TL_IMAGE_HEAD + sizeof binary];

static bool chip_begin(void *with, uint32_t size)
{
    (void)with;
    c.begun++;
    c.size = size;
    c.n = 0;
    c.writing = !c.begin_fails;
    return c.writing;
}

static bool chip_write(void *with, tl_span bytes)
{
    (void)with;
    CHECK(c.writing && bytes.n <= c.size - c.n);
    memcpy(c.slot[c.port.slot ^ 1u] + c.n, bytes.at, bytes.n);
    c.n += (uint32_t)bytes.n;
    return !c.write_fails;
}

static bool chip_finish(void *with)
{
    (void)with;
    CHECK(c.writing && c.n == c.size);
    if (c.finish_fails) {
        return false;
    }
    c.writing = false;
    c.boots = c.port.slot ^ 1u;
    c.fresh = true;
    return true;
}

static void chip_abort(void *with)
{
    (void)with;
    c.aborted++;
    c.writing = false;
}

static bool chip_on_trial(void *with)
{
    (void)with;
    return c.trial;
}

static bool chip_mark_valid(void *with)
{
    (void)with;
    c.trial = c.trial && c.mark_fails;
    return !c.mark_fails;
}

static void chip_rollback(void *with)
{
    (void)with;
    c.boots = c.port.slot ^ 1u;
    c.trial = false;
    c.restarted = true;
}

static void open_ota(void)
{
    const tl_ota_means means = {&c.port, &kv.port, tl_psa_crypto(), &runs, STEADY, PATIENCE};
    tl_ota_open(&ota, &means);
}

static bool is(const char *state)
{
    return strcmp(tl_ota_name(&ota), state) == 0;
}

/* A device that runs 1.0.1 of security 1 from slot 0. */
static void start(void)
{
    memset(&c, 0, sizeof c);
    nvs_init(&kv);
    c.port = (tl_port_ota){NULL,       TEST_TARGET,   0,
                           LARGEST,    chip_begin,    chip_write,
                           chip_finish, chip_abort,   chip_on_trial,
                           chip_mark_valid, chip_rollback};
    runs = test_firmware(1, 1);
    for (size_t i = 0; i < sizeof binary; i++) {
        binary[i] = (uint8_t)(i * 7);
    }
    open_ota();
    CHECK(is("idle"));
}

/* The boot loader; what boots is version 1.0.patch. */
static void reboot(uint32_t patch, uint32_t security)
{
    if (c.trial) { /* it had its chance */
        c.boots = c.port.slot ^ 1u;
    }
    c.trial = c.fresh;
    c.fresh = false;
    c.restarted = false;
    c.port.slot = c.boots;
    runs = test_firmware(patch, security);
    open_ota();
}

static tl_span made(uint32_t patch, uint32_t security)
{
    tl_out out = {image, 0, sizeof image, false};
    test_image(&out, patch, security, (tl_span){binary, sizeof binary});
    CHECK(!out.full && out.n == sizeof image);
    return (tl_span){image, out.n};
}

static const char *send(tl_span whole, size_t each, bool force)
{
    const char *why = tl_ota_begin(&ota, whole.n, force);
    while (why == NULL && whole.n > 0) {
        why = tl_ota_add(&ota, tl_take(&whole, each));
    }
    return why != NULL ? why : tl_ota_end(&ota);
}

static bool refused(const char *why, const char *word)
{
    return why != NULL && strstr(why, word) != NULL && !c.writing && ota.state != TL_OTA_RECEIVING && c.boots == c.port.slot;
}

static void a_good_image_is_tried_and_kept(void)
{
    static const size_t each[] = {1, 7, 255, 256, 257, 1024, 4096};
    for (size_t i = 0; i < sizeof each / sizeof each[0]; i++) {
        start();
        CHECK(send(made(2, 1), each[i], false) == NULL);
        CHECK(is("verified") && c.boots == 1 && memcmp(c.slot[1], binary, sizeof binary) == 0);
        CHECK(tl_ota_begin(&ota, 3000, false) != NULL); /* it waits for the restart */
        CHECK(tl_ota_run(&ota, 1, true) == UINT64_MAX);
        reboot(2, 1);
        CHECK(is("trial") && ota.version.part[2] == 2);
        CHECK(tl_ota_begin(&ota, 3000, true) != NULL);
        CHECK(tl_ota_run(&ota, 1, false) == PATIENCE);
        CHECK(tl_ota_run(&ota, 10, true) == STEADY);
        CHECK(tl_ota_run(&ota, STEADY - 1, false) == STEADY && c.trial); /* reached once is enough */
        CHECK(tl_ota_run(&ota, STEADY, false) == UINT64_MAX && !c.trial);
        CHECK(is("confirmed"));
        reboot(2, 1);
        CHECK(is("confirmed") && c.port.slot == 1 && ota.version.part[2] == 2);
        CHECK(send(made(3, 1), 1024, false) == NULL && c.boots == 0); /* and back into the other slot */
    }
}

static void one_that_reaches_nothing_is_given_up(void)
{
    start();
    CHECK(send(made(2, 1), 1024, false) == NULL);
    reboot(2, 1);
    CHECK(tl_ota_run(&ota, PATIENCE - 1, false) == PATIENCE && !c.restarted);
    CHECK(tl_ota_run(&ota, PATIENCE, false) == UINT64_MAX && c.restarted);
    reboot(1, 1);
    CHECK(is("rolled_back") && c.port.slot == 0 && ota.version.part[2] == 2);
    reboot(1, 1);
    CHECK(is("rolled_back"));
    CHECK(send(made(3, 1), 1024, false) == NULL && is("verified"));
}

static void one_that_crashes_is_given_up(void)
{
    start();
    CHECK(send(made(2, 1), 1024, false) == NULL);
    reboot(2, 1);
    reboot(1, 1);
    CHECK(is("rolled_back") && c.port.slot == 0);
    /* So is one that never came to our code. */
    start();
    CHECK(send(made(2, 1), 1024, false) == NULL);
    c.boots = 0;
    c.fresh = false;
    reboot(1, 1);
    CHECK(is("rolled_back"));
    /* And one of the same version, where the numbers do not tell. */
    start();
    CHECK(send(made(1, 1), 1024, true) == NULL);
    reboot(1, 1);
    CHECK(is("trial") && c.port.slot == 1);
    reboot(1, 1);
    CHECK(is("rolled_back") && c.port.slot == 0);
}

static void a_mark_that_fails_confirms_nothing(void)
{
    start();
    CHECK(send(made(2, 1), 1024, false) == NULL);
    reboot(2, 1);
    c.mark_fails = true;
    CHECK(tl_ota_run(&ota, STEADY, true) == PATIENCE && is("trial"));
    CHECK(tl_ota_run(&ota, PATIENCE, true) == UINT64_MAX && c.restarted);
}

static void what_the_build_says_is_read(void)
{
    static const char key[] = "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
                              "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5";
    static const char *const bad_versions[] = {"", "1", "1.2", "1.2.3.4", "1..3", "1.2.x", "1.2.4294967296", "-1.2.3",
                                               "v1.2.3", "1.2.3-dirty", " 1.2.3"};
    tl_firmware made;
    CHECK(tl_firmware_read(&made, "b", "1.20.4294967295", 7, key, "") && made.key[0][0] == 4 && made.key[0][1] == 0x6b);
    CHECK(made.key[0][64] == 0xf5 && made.key[1][0] == 0 && made.security == 7 && strcmp(made.hardware, "b") == 0);
    CHECK(made.version.part[0] == 1 && made.version.part[1] == 20 && made.version.part[2] == UINT32_MAX);
    CHECK(tl_firmware_read(&made, "b", "0.0.0", 0, "", key) && made.key[0][0] == 0 && made.key[1][64] == 0xf5);
    for (size_t i = 0; i < sizeof bad_versions / sizeof bad_versions[0]; i++) {
        CHECK_NAMED(!tl_firmware_read(&made, "b", bad_versions[i], 0, "", ""), bad_versions[i]);
    }
    char wrong[sizeof key];
    memcpy(wrong, key, sizeof key);
    wrong[70] = 'G';
    CHECK(!tl_firmware_read(&made, "b", "1.2.3", 0, wrong, ""));
    CHECK(!tl_firmware_read(&made, "b", "1.2.3", 0, key + 1, ""));
    CHECK(!tl_firmware_read(&made, "b", "1.2.3", 0, "04", ""));
}

/* The power goes between the mark and what is kept of it. */
static void a_mark_counts_when_nothing_was_kept_of_it(void)
{
    start();
    CHECK(send(made(2, 5), 1024, false) == NULL);
    reboot(2, 5);
    kv.fail_at = 1;
    CHECK(tl_ota_run(&ota, STEADY, true) == UINT64_MAX);
    kv.fail_at = 0;
    reboot(2, 5);
    CHECK(is("confirmed") && ota.floor == 5);
}

static void the_floor_only_rises(void)
{
    start();
    CHECK(send(made(2, 5), 1024, false) == NULL);
    reboot(2, 5);
    CHECK(ota.floor == 0); /* on trial: the former one must be able to come back */
    CHECK(tl_ota_run(&ota, STEADY, true) == UINT64_MAX && ota.floor == 5);
    reboot(2, 5);
    CHECK(ota.floor == 5);
    /* What runs is older than the floor: a boot loader fell back by itself. */
    runs = test_firmware(1, 1);
    CHECK(refused(send(made(3, 4), 1024, true), "security"));
    CHECK(ota.floor == 5 && is("confirmed"));
    CHECK(send(made(3, 5), 1024, false) == NULL);
    reboot(3, 5);
    CHECK(tl_ota_run(&ota, STEADY, true) == UINT64_MAX && ota.floor == 5);
    c.trial = true; /* nor does it fall where a boot loader tries an old image by itself */
    runs = test_firmware(1, 1);
    open_ota();
    CHECK(is("trial") && tl_ota_run(&ota, STEADY, true) == UINT64_MAX && ota.floor == 5);
}

static void not_a_byte_of_a_bad_one_is_written(void)
{
    start();
    made(2, 1);
    for (size_t at = 0; at < TL_IMAGE_HEAD; at++) {
        image[at] ^= 1;
        CHECK(refused(send((tl_span){image, sizeof image}, 1024, true), ""));
        image[at] ^= 1;
    }
    CHECK(refused(send(made(1, 1), 1024, false), "newer"));
    CHECK(refused(send(made(2, 0), 1024, true), "security"));
    made(2, 1);
    CHECK(refused(send((tl_span){image, sizeof image - 1}, 1024, false), "long"));
    CHECK(refused(tl_ota_begin(&ota, LARGEST + TL_IMAGE_HEAD + 1, true), "fit"));
    CHECK(refused(tl_ota_begin(&ota, UINT64_MAX, true), "fit"));
    CHECK(refused(tl_ota_begin(&ota, TL_IMAGE_HEAD, true), "fit"));
    CHECK(c.begun == 0 && c.aborted == 0 && is("idle"));
}

/* Bytes that are not what was signed are written, and never boot. */
static void what_was_not_signed_never_boots(void)
{
    start();
    made(2, 1);
    for (size_t at = TL_IMAGE_HEAD; at < sizeof image; at += 97) {
        image[at] ^= 0x80;
        CHECK(refused(send((tl_span){image, sizeof image}, 512, false), "signed"));
        image[at] ^= 0x80;
    }
    CHECK(c.begun > 0 && c.aborted == c.begun && is("idle"));
}

static void too_many_and_too_few(void)
{
    start();
    made(2, 1);
    CHECK(tl_ota_begin(&ota, sizeof image, false) == NULL && is("receiving"));
    CHECK(strstr(tl_ota_begin(&ota, sizeof image, false), "Another") != NULL && is("receiving"));
    CHECK(tl_ota_add(&ota, (tl_span){image, sizeof image - 1}) == NULL);
    CHECK(ota.received == sizeof image - 1);
    CHECK(refused(tl_ota_end(&ota), "shorter") && c.aborted == 1);
    CHECK(tl_ota_begin(&ota, sizeof image, false) == NULL);
    CHECK(tl_ota_add(&ota, (tl_span){image, sizeof image}) == NULL);
    CHECK(refused(tl_ota_add(&ota, (tl_span){image, 1}), "longer") && c.aborted == 2);
    CHECK(tl_ota_begin(&ota, sizeof image, false) == NULL);
    CHECK(tl_ota_add(&ota, (tl_span){image, 100}) == NULL);
    CHECK(refused(tl_ota_end(&ota), "shorter") && c.aborted == 2); /* nothing was begun */
    CHECK(tl_ota_add(&ota, (tl_span){image, 1}) != NULL && tl_ota_end(&ota) != NULL && is("idle"));
    CHECK(tl_ota_begin(&ota, sizeof image, false) == NULL);
    CHECK(tl_ota_add(&ota, (tl_span){image, 1000}) == NULL);
    tl_ota_drop(&ota);
    CHECK(is("idle") && c.aborted == 3 && !c.writing);
    tl_ota_drop(&ota); /* once more does nothing */
    CHECK(c.aborted == 3);
    CHECK(send((tl_span){image, sizeof image}, 100, false) == NULL);
    tl_ota_drop(&ota); /* nor when it is whole */
    CHECK(is("verified") && c.boots == 1);
}

static void a_flash_that_fails_leaves_what_runs(void)
{
    start();
    c.begin_fails = true;
    CHECK(refused(send(made(2, 1), 1024, false), "flash") && is("idle"));
    c.begin_fails = false;
    c.write_fails = true;
    CHECK(refused(send(made(2, 1), 1024, false), "flash") && is("idle"));
    c.write_fails = false;
    c.finish_fails = true;
    CHECK(refused(send(made(2, 1), 1024, false), "flash") && is("rolled_back"));
    c.finish_fails = false;
    kv.steps = 0;
    kv.fail_at = 1;
    CHECK(refused(send(made(2, 1), 1024, false), "flash"));
    kv.fail_at = 0;
    CHECK(send(made(2, 1), 1024, false) == NULL);
}

/* A refused one does not hide what became of the last. */
static void the_last_update_stays_told(void)
{
    start();
    CHECK(send(made(2, 1), 1024, false) == NULL);
    reboot(2, 1);
    reboot(1, 1);
    CHECK(is("rolled_back"));
    image[200] ^= 1;
    CHECK(refused(send((tl_span){image, sizeof image}, 1024, false), "signature"));
    CHECK(is("rolled_back") && ota.version.part[2] == 2);
    CHECK(tl_ota_begin(&ota, sizeof image, false) == NULL);
    tl_ota_drop(&ota);
    CHECK(is("rolled_back"));
    /* A factory reset forgets it; one on trial it cannot forget. */
    CHECK(nvs_erase_all(&kv));
    open_ota();
    CHECK(is("idle"));
    CHECK(send(made(2, 1), 1024, false) == NULL && nvs_erase_all(&kv));
    reboot(2, 1);
    CHECK(is("trial"));
    static const uint8_t odd[19] = {1, 77};
    CHECK(nvs_set(&kv, "ota", (tl_span){odd, sizeof odd}));
    c.trial = false;
    open_ota();
    CHECK(is("idle"));
}

int main(void)
{
    static const check_test tests[] = {
        CHECK_TEST(a_good_image_is_tried_and_kept),
        CHECK_TEST(one_that_reaches_nothing_is_given_up),
        CHECK_TEST(one_that_crashes_is_given_up),
        CHECK_TEST(a_mark_that_fails_confirms_nothing),
        CHECK_TEST(a_mark_counts_when_nothing_was_kept_of_it),
        CHECK_TEST(the_floor_only_rises),
        CHECK_TEST(what_the_build_says_is_read),
        CHECK_TEST(not_a_byte_of_a_bad_one_is_written),
        CHECK_TEST(what_was_not_signed_never_boots),
        CHECK_TEST(too_many_and_too_few),
        CHECK_TEST(a_flash_that_fails_leaves_what_runs),
        CHECK_TEST(the_last_update_stays_told),
    };
    return tl_psa_crypto() != NULL ? CHECK_ALL(tests) : 1;
}
