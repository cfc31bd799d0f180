#include "towline/settings.h"

#include "check.h"
#include "nvs.h"
#include "towline/bytes.h"
#include "towline/crc.h"

static nvs kv;
static tl_settings_store store;
static tl_settings settings, back;

static bool load(void)
{
    return tl_settings_load(&store, &kv.port, &settings);
}

static bool load_back(void)
{
    tl_settings_store other;
    return tl_settings_load(&other, &kv.port, &back);
}

static bool commit_name(const char *name)
{
    return tl_settings_set_text(&settings, TL_SETTING_NAME, tl_text(name)) == NULL &&
           tl_settings_commit(&store, &settings);
}

static bool is_named(const char *name)
{
    return load_back() && strcmp(back.name, name) == 0;
}

static void nothing_kept_is_the_defaults(void)
{
    nvs_init(&kv);
    memset(&settings, 0xAA, sizeof settings);
    CHECK(!load());
    CHECK(settings.name[0] == '\0' && settings.gateway[0] == '\0' && settings.password[0] == '\0');
    CHECK(settings.support == 1 && settings.log_level == TL_LOG_INFO);
    CHECK(settings.keepalive_s == 4 && settings.report_s == 60);
    tl_settings usual;
    tl_settings_default(&usual);
    CHECK(memcmp(&usual, &settings, sizeof usual) == 0);
}

static void all_comes_back(void)
{
    char longest[TL_SETTING_URL_MAX + 1] = "https://";
    memset(longest + 8, 'a', sizeof longest - 9);
    nvs_init(&kv);
    CHECK(!load());
    CHECK(tl_settings_set_text(&settings, TL_SETTING_NAME, tl_text("K\303\274che")) == NULL);
    CHECK(tl_settings_set_text(&settings, TL_SETTING_SSID, tl_text("32 bytes of an SSID, all in use.")) == NULL);
    CHECK(tl_settings_set_text(&settings, TL_SETTING_PASSWORD, tl_text("correct horse")) == NULL);
    CHECK(tl_settings_set_text(&settings, TL_SETTING_GATEWAY, (tl_span){(uint8_t *)longest, 128}) == NULL);
    CHECK(tl_settings_set_text(&settings, TL_SETTING_TOKEN, tl_text("twd_token")) == NULL);
    CHECK(tl_settings_set_number(&settings, TL_SETTING_SUPPORT, 0) == NULL);
    CHECK(tl_settings_set_number(&settings, TL_SETTING_LOG_LEVEL, TL_LOG_DEBUG) == NULL);
    CHECK(tl_settings_set_number(&settings, TL_SETTING_KEEPALIVE_S, 20) == NULL);
    CHECK(tl_settings_set_number(&settings, TL_SETTING_REPORT_S, 3600) == NULL);
    CHECK(tl_settings_commit(&store, &settings));
    memset(&back, 0xAA, sizeof back);
    CHECK(load_back() && memcmp(&back, &settings, sizeof back) == 0);
    CHECK(strcmp(back.gateway, longest) == 0 && back.support == 0 && back.report_s == 3600);
    /* A shorter text leaves nothing of the longer one. */
    CHECK(commit_name("b") && load_back() && memcmp(&back, &settings, sizeof back) == 0 && back.name[1] == '\0');
    for (unsigned n = 0; n < 20; n++) {
        const char name[2] = {(char)('a' + n), '\0'};
        CHECK(load() && commit_name(name) && is_named(name));
    }
}

static void what_is_no_value_is_refused(void)
{
    static const uint8_t half[] = {'a', 0xC3}, with_nul[] = {'a', 0, 'b'};
    tl_settings_default(&settings);
    const tl_settings before = settings;
    CHECK(tl_settings_set_text(&settings, TL_SETTING_SSID, tl_text("33 bytes are more than fit there.")) != NULL);
    CHECK(tl_settings_set_text(&settings, TL_SETTING_NAME, (tl_span){half, sizeof half}) != NULL);
    CHECK(tl_settings_set_text(&settings, TL_SETTING_NAME, (tl_span){with_nul, sizeof with_nul}) != NULL);
    CHECK(tl_settings_set_text(&settings, TL_SETTING_GATEWAY, tl_text("https://a\r\nHost: b")) != NULL);
    CHECK(tl_settings_set_text(&settings, TL_SETTING_NAME, tl_text("\177")) != NULL);
    CHECK(tl_settings_set_text(&settings, TL_SETTING_REPORT_S, tl_text("5")) != NULL);
    CHECK(tl_settings_set_text(&settings, (tl_setting)99, tl_text("5")) != NULL);
    CHECK(tl_settings_set_number(&settings, TL_SETTING_NAME, 5) != NULL);
    CHECK(tl_settings_set_number(&settings, TL_SETTING_KEEPALIVE_S, 1) != NULL);
    CHECK(tl_settings_set_number(&settings, TL_SETTING_KEEPALIVE_S, 61) != NULL);
    CHECK(tl_settings_set_number(&settings, TL_SETTING_REPORT_S, INT64_MIN) != NULL);
    CHECK(tl_settings_set_number(&settings, TL_SETTING_REPORT_S, 65536 + 60) != NULL);
    CHECK(tl_settings_set_number(&settings, TL_SETTING_SUPPORT, 2) != NULL);
    CHECK(memcmp(&before, &settings, sizeof before) == 0);
}

/* Any one bit of the newest record: then the one before it counts. */
static void a_damaged_record_is_passed_over(void)
{
    nvs_init(&kv);
    CHECK(!load() && commit_name("old") && commit_name("new"));
    nvs_entry *entry = nvs_find(&kv, "settings.0");
    const size_t n = entry->n;
    uint8_t *newest = entry->value;
    for (size_t bit = 0; bit < n * 8; bit++) {
        newest[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        CHECK(is_named("old"));
        newest[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
    CHECK(is_named("new"));
    for (size_t cut = 0; cut < n; cut++) {
        entry->n = cut;
        CHECK(is_named("old"));
    }
    /* The next commit goes over the damaged one. */
    CHECK(load() && commit_name("newer") && is_named("newer"));
    CHECK(nvs_erase(&kv, "settings.1") && is_named("newer"));
}

static void a_store_that_fails_keeps_one_or_the_other(void)
{
    for (uint32_t fail_at = 1; fail_at <= 2; fail_at++) {
        nvs_init(&kv);
        CHECK(!load() && commit_name("one") && commit_name("two"));
        kv.steps = 0;
        kv.fail_at = fail_at;
        CHECK(!commit_name("three"));
        CHECK(is_named(fail_at == 1 ? "two" : "three"));
        kv.fail_at = 0;
        CHECK(commit_name("four") && is_named("four"));
        CHECK(nvs_erase(&kv, store.slot == 0 ? "settings.0" : "settings.1") && is_named("two"));
    }
}

/* Puts a record of these fields into a slot. */
static void put_slot(const char *key, uint32_t sequence, uint8_t format, tl_span fields)
{
    uint8_t bytes[NVS_VALUE];
    tl_out out = {bytes, 0, sizeof bytes, false};
    tl_put_u16(&out, 0x5453);
    tl_put_u8(&out, format);
    tl_put_u32(&out, sequence);
    tl_put_span(&out, fields);
    tl_put_u32(&out, tl_crc32(0, (tl_span){bytes, out.n}));
    CHECK(nvs_set(&kv, key, (tl_span){bytes, out.n}));
}

static void other_versions_are_understood(void)
{
    /* A field unknown here, a name, a number of another size, one out of bounds; cut short at its end. */
    static const uint8_t fields[] = {200, 3, 'x', 'y', 'z', TL_SETTING_NAME, 2, 'o', 'k', TL_SETTING_REPORT_S, 1, 9,
                                     TL_SETTING_KEEPALIVE_S, 2, 0, 200, TL_SETTING_SUPPORT, 2, 0, 0,
                                     TL_SETTING_GATEWAY, 9, 'h'};
    nvs_init(&kv);
    put_slot("settings.1", 9, 1, (tl_span){fields, sizeof fields});
    CHECK(load_back() && strcmp(back.name, "ok") == 0 && back.report_s == 60 && back.keepalive_s == 4);
    CHECK(back.support == 0 && back.gateway[0] == '\0');
    put_slot("settings.0", 10, 2, (tl_span){fields, 5}); /* another format: not ours to read */
    CHECK(load_back() && strcmp(back.name, "ok") == 0);
}

static void the_numbers_may_run_over(void)
{
    static const uint8_t old[] = {TL_SETTING_NAME, 3, 'o', 'l', 'd'}, fresh[] = {TL_SETTING_NAME, 3, 'n', 'e', 'w'};
    nvs_init(&kv);
    put_slot("settings.0", UINT32_MAX, 1, (tl_span){old, sizeof old});
    put_slot("settings.1", 0, 1, (tl_span){fresh, sizeof fresh});
    CHECK(is_named("new"));
    CHECK(load() && store.slot == 1 && commit_name("newest") && is_named("newest"));
}

int main(void)
{
    static const check_test tests[] = {
        CHECK_TEST(nothing_kept_is_the_defaults),
        CHECK_TEST(all_comes_back),
        CHECK_TEST(what_is_no_value_is_refused),
        CHECK_TEST(a_damaged_record_is_passed_over),
        CHECK_TEST(a_store_that_fails_keeps_one_or_the_other),
        CHECK_TEST(other_versions_are_understood),
        CHECK_TEST(the_numbers_may_run_over),
    };
    return CHECK_ALL(tests);
}
