/* The power goes at every single write of a settings commit and of an update: what is there afterwards is the old or
 * the new, whole. Each run is a process of its own that dies at its n-th write (disk.h), on real files. */
#include "check.h"
#include "disk.h"
#include "flash_file.h"
#include "kv_file.h"
#include "ota_files.h"
#include "signed_image.h"
#include "towline/flash_ring.h"
#include "towline/ota.h"
#include "towline/settings.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define CUTS_AT_MOST 400u /* far more writes than any of these needs */
#define OLD_RUNS 10       /* exit codes of what boots */
#define NEW_RUNS 20
#define STEADY_MS 60u

static char path[PATH_MAX];
static int folder = -1;

/* --- a folder of its own for each run --- */

static void empty_folder(void)
{
    DIR *entries = fdopendir(dup(folder));
    rewinddir(entries);
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        if (entry->d_name[0] != '.') {
            unlinkat(folder, entry->d_name, 0);
        }
    }
    closedir(entries);
}

static void make_folder(void)
{
    const char *base = getenv("TMPDIR");
    (void)snprintf(path, sizeof path, "%s/power-cut-XXXXXX", base != NULL ? base : "/tmp");
    CHECK(mkdtemp(path) != NULL);
    folder = open(path, O_RDONLY | O_DIRECTORY);
    CHECK(folder >= 0);
}

static void drop_folder(void)
{
    empty_folder();
    close(folder);
    rmdir(path);
}

/* Runs it in a process whose power goes at this write (0: never); its exit code. */
static int run(int (*task)(void), uint64_t cut_at)
{
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        tl_disk_cut_at(cut_at);
        _exit(task());
    }
    int status = 0;
    CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* --- settings --- */

static tl_kv_file kv;
static tl_settings_store store;
static tl_settings settings;

static bool open_settings(void)
{
    return tl_kv_file_open(&kv, folder) == NULL && tl_settings_load(&store, &kv.port, &settings);
}

/* All texts are of one kind, so that a mix would be seen. */
static int commit_all(char letter)
{
    uint8_t text[TL_SETTING_URL_MAX];
    memset(text, letter, sizeof text);
    (void)open_settings();
    const bool set = tl_settings_set_text(&settings, TL_SETTING_NAME, (tl_span){text, 20}) == NULL &&
                     tl_settings_set_text(&settings, TL_SETTING_SSID, (tl_span){text, 32}) == NULL &&
                     tl_settings_set_text(&settings, TL_SETTING_PASSWORD, (tl_span){text, 60}) == NULL &&
                     tl_settings_set_text(&settings, TL_SETTING_GATEWAY, (tl_span){text, 128}) == NULL;
    return set && tl_settings_commit(&store, &settings) ? 0 : 1;
}

static int commit_old(void)
{
    return commit_all('o');
}

static int commit_new(void)
{
    return commit_all('n');
}

static bool all_are(char letter)
{
    return strspn(settings.name, (char[]){letter, '\0'}) == 20 && strspn(settings.ssid, (char[]){letter, '\0'}) == 32 &&
           strspn(settings.password, (char[]){letter, '\0'}) == 60 &&
           strspn(settings.gateway, (char[]){letter, '\0'}) == 128;
}

static void settings_outlive_every_cut(void)
{
    unsigned old = 0, fresh = 0, cuts = 0;
    int code = TL_DISK_CUT_EXIT;
    make_folder();
    while (code == TL_DISK_CUT_EXIT && ++cuts < CUTS_AT_MOST) {
        empty_folder();
        CHECK(run(commit_old, 0) == 0);
        code = run(commit_new, cuts);
        CHECK(open_settings());
        old += all_are('o');
        fresh += all_are('n');
        CHECK(old + fresh == cuts);
        CHECK(code == TL_DISK_CUT_EXIT || all_are('n')); /* what was said to be durable is */
        tl_kv_file_close(&kv);
        CHECK(run(commit_old, 0) == 0 && open_settings() && all_are('o')); /* and it goes on from there */
        tl_kv_file_close(&kv);
    }
    CHECK(code == 0 && cuts > 3 && old > 1 && fresh > 0);
    drop_folder();
}

/* --- an update --- */

static tl_ota_files files;
static tl_ota ota;
static tl_firmware runs;
static char program[PATH_MAX];
static char *boot_arguments[] = {program, path, NULL};

static void no_restart(void *owner)
{
    (void)owner;
}

static bool open_ota(uint32_t patch)
{
    runs = test_firmware(patch, patch);
    tl_ota_files_init(&files, no_restart, NULL);
    const tl_ota_means means = {&files.port, &kv.port, tl_psa_crypto(), &runs, STEADY_MS, 10 * STEADY_MS};
    if (tl_kv_file_open(&kv, folder) != NULL) {
        return false;
    }
    tl_ota_open(&ota, &means);
    return true;
}

/* The device's start: the boot loader, and then whatever it boots. A child's exit code says which that was. */
static int boot_only(void)
{
    return tl_ota_files_boot(&files, folder, boot_arguments) == NULL ? OLD_RUNS + files.port.slot : 1;
}

static bool make_update(tl_out *image)
{
    char script[PATH_MAX];
    const int n = snprintf(script, sizeof script, "#!/bin/sh\nexit %d\n", NEW_RUNS);
    test_image(image, 2, 2, (tl_span){(const uint8_t *)script, (size_t)n});
    return !image->full;
}

static int take_update(void)
{
    uint8_t bytes[TL_IMAGE_HEAD + 200];
    tl_out image = {bytes, 0, sizeof bytes, false};
    if (tl_ota_files_boot(&files, folder, boot_arguments) != NULL || files.port.slot != 0 || !open_ota(1) ||
        !make_update(&image)) {
        return 1;
    }
    tl_span rest = {bytes, image.n};
    const char *why = tl_ota_begin(&ota, rest.n, false);
    while (why == NULL && rest.n > 0) {
        why = tl_ota_add(&ota, tl_take(&rest, 9));
    }
    return why == NULL && tl_ota_end(&ota) == NULL ? 0 : 2;
}

static bool says(const char *state)
{
    return strcmp(tl_ota_name(&ota), state) == 0;
}

/* The update was cut: the old image boots and can be updated; or the new one boots, once, and then the old one. */
static void an_update_outlives_every_cut(void)
{
    unsigned cuts = 0, old = 0, fresh = 0;
    int code = TL_DISK_CUT_EXIT;
    make_folder();
    while (code == TL_DISK_CUT_EXIT && ++cuts < CUTS_AT_MOST) {
        empty_folder();
        code = run(take_update, cuts);
        const int booted = run(boot_only, 0);
        CHECK(booted == OLD_RUNS || booted == NEW_RUNS);
        CHECK(code == TL_DISK_CUT_EXIT || booted == NEW_RUNS);
        old += booted == OLD_RUNS;
        fresh += booted == NEW_RUNS;
        CHECK(run(boot_only, 0) == OLD_RUNS); /* the new one did not prove itself */
        files = (tl_ota_files){.folder = folder, .file = -1};
        CHECK(open_ota(1));
        CHECK(says("idle") || says("rolled_back"));
        CHECK(booted == OLD_RUNS || says("rolled_back"));
        tl_kv_file_close(&kv);
        CHECK(run(take_update, 0) == 0 && run(boot_only, 0) == NEW_RUNS);
    }
    CHECK(code == 0 && old + fresh == cuts && old > 10 && fresh > 0);
    drop_folder();
}

/* The new image runs, and the power goes while it confirms itself. */
static int confirm_update(void)
{
    files = (tl_ota_files){.folder = folder, .file = -1, .trial = true};
    files.port.slot = 1;
    if (!open_ota(2) || !says("trial")) {
        return 1;
    }
    return tl_ota_run(&ota, STEADY_MS, true) == UINT64_MAX && says("confirmed") ? 0 : 2;
}

static void a_confirmation_outlives_every_cut(void)
{
    unsigned cuts = 0, old = 0, fresh = 0;
    int code = TL_DISK_CUT_EXIT;
    make_folder();
    while (code == TL_DISK_CUT_EXIT && ++cuts < CUTS_AT_MOST) {
        empty_folder();
        CHECK(run(take_update, 0) == 0 && run(boot_only, 0) == NEW_RUNS);
        code = run(confirm_update, cuts);
        const int booted = run(boot_only, 0);
        CHECK(booted == OLD_RUNS || booted == NEW_RUNS);
        CHECK(code == TL_DISK_CUT_EXIT || booted == NEW_RUNS);
        CHECK(run(boot_only, 0) == booted); /* it is decided */
        files = (tl_ota_files){.folder = folder, .file = -1};
        files.port.slot = booted == NEW_RUNS;
        CHECK(open_ota(booted == NEW_RUNS ? 2 : 1));
        CHECK(says(booted == NEW_RUNS ? "confirmed" : "rolled_back"));
        CHECK(ota.floor == (booted == NEW_RUNS ? 2 : 0));
        tl_kv_file_close(&kv);
        old += booted == OLD_RUNS;
        fresh += booted == NEW_RUNS;
    }
    CHECK(code == 0 && old > 1 && fresh > 1);
    drop_folder();
}

/* The boot loader's own writes: an untried image boots at most once, and in the end the old one. */
static void the_boot_loader_outlives_every_cut(void)
{
    int code = TL_DISK_CUT_EXIT;
    unsigned cuts = 0;
    make_folder();
    while (code == TL_DISK_CUT_EXIT && ++cuts < CUTS_AT_MOST) {
        empty_folder();
        CHECK(run(take_update, 0) == 0);
        code = run(boot_only, cuts);
        CHECK(code == TL_DISK_CUT_EXIT || code == NEW_RUNS);
        unsigned tried = code == NEW_RUNS;
        for (unsigned n = 0; n < 3; n++) {
            const int booted = run(boot_only, 0);
            CHECK(booted == OLD_RUNS || booted == NEW_RUNS);
            tried += booted == NEW_RUNS;
        }
        CHECK(tried <= 1 && run(boot_only, 0) == OLD_RUNS);
    }
    CHECK(code == NEW_RUNS && cuts > 3);
    drop_folder();
}

/* --- images that no machine can run, and files that are damaged --- */

static void put_file(const char *name, const void *bytes, size_t n)
{
    const int file = openat(folder, name, O_WRONLY | O_CREAT | O_TRUNC, 0700);
    CHECK(file >= 0 && write(file, bytes, n) == (ssize_t)n);
    close(file);
}

static int boot_refused(void)
{
    return tl_ota_files_boot(&files, folder, boot_arguments) != NULL ? 5 : 6;
}

static int open_kv_refused(void)
{
    return tl_kv_file_open(&kv, folder) != NULL ? 5 : 6;
}

static void what_cannot_run_does_not_stop_the_device(void)
{
    make_folder();
    put_file("image.1", "\x7f" "ELF, and nothing more", 22);
    put_file("boot", "TLBT\x01\x01", 6);
    CHECK(run(boot_only, 0) == OLD_RUNS);
    CHECK(run(boot_only, 0) == OLD_RUNS);
    static const char *const damaged[] = {"TLBT\x02\x01", "TLBT\x01\x03", "TLBX\x01\x01"};
    for (size_t i = 0; i < sizeof damaged / sizeof damaged[0]; i++) {
        put_file("boot", damaged[i], 6);
        CHECK(run(boot_refused, 0) == 5);
    }
    put_file("boot", "TLBT\x01\x01+", 7);
    CHECK(run(boot_refused, 0) == 5);
    drop_folder();
}

static void a_damaged_store_is_said(void)
{
    make_folder();
    CHECK(run(commit_old, 0) == 0);
    uint8_t bytes[2000], whole[2000];
    const int file = openat(folder, "kv", O_RDONLY);
    const ssize_t n = read(file, whole, sizeof whole);
    close(file);
    CHECK(n > 100 && n < (ssize_t)sizeof whole);
    for (ssize_t at = 0; at < n; at += 5) {
        memcpy(bytes, whole, (size_t)n);
        bytes[at] ^= 4;
        put_file("kv", bytes, (size_t)n);
        CHECK(run(open_kv_refused, 0) == 5);
        put_file("kv", whole, (size_t)at);
        CHECK(run(open_kv_refused, 0) == 5);
    }
    put_file("kv", whole, (size_t)n);
    CHECK(open_settings() && all_are('o'));
    tl_kv_file_close(&kv);
    drop_folder();
}

/* --- flash as a file --- */

static void nothing_told(void *owner, const tl_ring_record *record)
{
    *(unsigned *)owner += record->n == 100;
}

static int fill_ring(void)
{
    tl_flash_file flash;
    tl_ring ring;
    tl_ring_record record[64];
    uint8_t bytes[100];
    unsigned told = 0;
    if (tl_flash_file_open(&flash, folder, "outbox", 4) != NULL ||
        !tl_ring_open(&ring, &flash.port, 0, 3, nothing_told, &told)) {
        return 1;
    }
    memset(bytes, 0x5A, sizeof bytes);
    for (unsigned n = 0; n < 400; n++) {
        if (n >= 10 && !tl_ring_drop(&ring, &record[(n - 10) % 64])) {
            return 2;
        }
        if (tl_ring_append(&ring, 1, (tl_span){bytes, 50}, (tl_span){bytes + 50, 50}, &record[n % 64]) != TL_RING_DONE) {
            return 3;
        }
    }
    tl_flash_file_close(&flash);
    return 0;
}

/* The ring's own cuts are in test_flash_ring.c; here it is that the file tears as flash does, and stays usable. */
static void the_flash_tears_and_goes_on(void)
{
    unsigned cuts = 0;
    make_folder();
    for (uint64_t cut_at = 1; cut_at < 1500; cut_at += 13) {
        empty_folder();
        cuts += run(fill_ring, cut_at) == TL_DISK_CUT_EXIT;
        tl_flash_file flash;
        tl_ring ring;
        unsigned told = 0;
        CHECK(tl_flash_file_open(&flash, folder, "outbox", 4) == NULL);
        CHECK(tl_ring_open(&ring, &flash.port, 0, 3, nothing_told, &told));
        CHECK(told <= 11 && (told >= 9 || cut_at < 60));
        tl_flash_file_close(&flash);
    }
    CHECK(cuts > 90);
    empty_folder();
    tl_flash_file flash;
    uint8_t two[2];
    CHECK(tl_flash_file_open(&flash, folder, "outbox", 2) == NULL && flash.port.size == 2 * TL_FLASH_SECTOR);
    const tl_port_flash *port = &flash.port;
    CHECK(port->write(port->with, 5, (tl_span){(const uint8_t *)"\xF0\x0F", 2}));
    CHECK(!port->write(port->with, 5, (tl_span){(const uint8_t *)"\xF1\x0F", 2})); /* a bit would rise */
    CHECK(port->read(port->with, 5, two, 2) && two[0] == 0xF0 && two[1] == 0x0F);
    CHECK(!port->read(port->with, 2 * TL_FLASH_SECTOR - 1, two, 2) && !port->erase(port->with, 1));
    CHECK(!port->write(port->with, UINT32_MAX, (tl_span){two, 2}) && !port->erase(port->with, 2 * TL_FLASH_SECTOR));
    CHECK(port->erase(port->with, 0) && port->read(port->with, 5, two, 2) && two[0] == 0xFF && two[1] == 0xFF);
    tl_flash_file_close(&flash);
    drop_folder();
}

static void the_store_has_bounds(void)
{
    static uint8_t large[TL_KV_VALUE_MAX + 1];
    uint8_t back[TL_KV_VALUE_MAX + 1];
    make_folder();
    CHECK(tl_kv_file_open(&kv, folder) == NULL);
    const tl_port_kv *port = &kv.port;
    tl_out out = {back, 0, sizeof back, false};
    CHECK(!port->get(port->with, "none", &out) && port->erase(port->with, "none"));
    CHECK(!port->set(port->with, "sixteen letters.", (tl_span){large, 1}) && !port->set(port->with, "", (tl_span){large, 1}));
    CHECK(!port->set(port->with, "large", (tl_span){large, sizeof large}));
    CHECK(port->set(port->with, "large", (tl_span){large, TL_KV_VALUE_MAX}) && port->commit(port->with));
    out.cap = TL_KV_VALUE_MAX - 1;
    CHECK(!port->get(port->with, "large", &out) && out.n == 0);
    for (unsigned n = 1; n < TL_KV_FILE_KEYS; n++) {
        const char key[3] = {'k', (char)('!' + n), '\0'};
        CHECK(port->set(port->with, key, (tl_span){large, 3}));
    }
    CHECK(!port->set(port->with, "one more", (tl_span){large, 1}) && port->erase(port->with, "k#"));
    CHECK(port->set(port->with, "one more", (tl_span){large, 1}) && port->commit(port->with));
    tl_kv_file_close(&kv);
    CHECK(tl_kv_file_open(&kv, folder) == NULL);
    out = (tl_out){back, 0, sizeof back, false};
    CHECK(port->get(port->with, "one more", &out) && out.n == 1 && port->get(port->with, "large", &out));
    CHECK(!port->get(port->with, "k#", &out) && port->erase_all(port->with) && !port->get(port->with, "large", &out));
    tl_kv_file_close(&kv);
    CHECK(tl_kv_file_open(&kv, folder) == NULL && !port->get(port->with, "large", &out));
    tl_kv_file_close(&kv);
    drop_folder();
}

int main(void)
{
    static const check_test tests[] = {
        CHECK_TEST(settings_outlive_every_cut),
        CHECK_TEST(an_update_outlives_every_cut),
        CHECK_TEST(a_confirmation_outlives_every_cut),
        CHECK_TEST(the_boot_loader_outlives_every_cut),
        CHECK_TEST(what_cannot_run_does_not_stop_the_device),
        CHECK_TEST(a_damaged_store_is_said),
        CHECK_TEST(the_flash_tears_and_goes_on),
        CHECK_TEST(the_store_has_bounds),
    };
    return tl_psa_crypto() != NULL ? CHECK_ALL(tests) : 1;
}
