/* What the page is told of a device, and what it changes there. */
#include "check.h"
#include "nvs.h"
#include "towline/panel.h"
#include "toy_crypto.h"

typedef struct {
    uint64_t now_ms;
    int64_t wall_s;
    tl_reset_reason reset_reason;
    char console[200];
    const char *address;
    bool wifi;
    unsigned work, works;
} machine;

static uint64_t now_ms(void *with)
{
    return ((machine *)with)->now_ms;
}

static int64_t wall_s(void *with)
{
    return ((machine *)with)->wall_s;
}

static void console(void *with, tl_log_level level, tl_span text)
{
    (void)level;
    memcpy(((machine *)with)->console, text.at, text.n);
    ((machine *)with)->console[text.n] = '\0';
}

static void memory(void *with, tl_memory *m)
{
    (void)with;
    *m = (tl_memory){100000, 80000, 60000};
}

static tl_reset_reason reset_reason(void *with)
{
    return ((machine *)with)->reset_reason;
}

static bool rssi(void *with, int8_t *dbm)
{
    *dbm = -61;
    return ((machine *)with)->wifi;
}

static bool host_name(void *with, size_t index, tl_out *host)
{
    const machine *m = with;
    if (index > 0 || m->address == NULL) {
        return false;
    }
    tl_put_text(host, m->address);
    return true;
}

static void work(void *device, unsigned what)
{
    ((machine *)device)->work |= what;
    ((machine *)device)->works++;
}

static machine m;
static nvs store;
static tl_port_sys sys;
static tl_port_network network;
static tl_port port;
static tl_log_ring ring;
static tl_identity identity;
static tl_tunnel tunnel;
static tl_messages messages;
static tl_settings settings;
static tl_settings_store slots;
static tl_panel panel;

static tl_ota ota;
static tl_ota *images; /* NULL: the device takes none */

static void started(void)
{
    const tl_panel_parts parts = {&port, &ring, &identity, &tunnel, &messages, &settings, &slots, "esp32", "1.2.3", work, &m, images};
    m = (machine){.now_ms = 61000, .wall_s = -1, .address = "192.0.2.7"};
    sys = (tl_port_sys){.with = &m, .now_ms = now_ms, .wall_s = wall_s, .log = console, .memory = memory, .reset_reason = reset_reason};
    network = (tl_port_network){.with = &m, .rssi = rssi, .name = host_name};
    port = (tl_port){.crypto = &TOY_CRYPTO, .sys = &sys, .kv = &store.port, .network = &network};
    memset(&identity, 0, sizeof identity);
    memset(&tunnel, 0, sizeof tunnel);
    memset(&messages, 0, sizeof messages);
    tunnel.parts.max_streams = 4;
    tl_log_init(&ring, &sys, TL_LOG_INFO);
    (void)tl_settings_load(&slots, &store.port, &settings);
    tl_panel_init(&panel, &parts);
    (void)tl_panel_run(&panel, m.now_ms);
}

static void begun(void)
{
    nvs_init(&store);
    started();
}

static const tl_ui_device *calls(void)
{
    return panel.ui.calls;
}

static void what_is_told(void)
{
    begun();
    tl_ui_facts f;
    calls()->facts(&panel, &f);
    CHECK(f.device.n == 0 && tl_is(f.hardware, "esp32") && tl_is(f.version, "1.2.3") && tl_is(f.reset_reason, "power"));
    CHECK(tl_is(f.tunnel, "off") && tl_is(f.messages, "off") && tl_is(f.address, "192.0.2.7"));
    CHECK(f.uptime_s == 61 && f.time_s == TL_UI_UNKNOWN && f.rssi == TL_UI_UNKNOWN && f.ssid.n == 0);
    CHECK(f.memory_free == 100000 && f.memory_least == 80000 && f.memory_block == 60000 && f.outbox == 0);
    m = (machine){.now_ms = 2000, .wall_s = 1800000000, .wifi = true, .reset_reason = TL_RESET_BROWNOUT};
    memcpy(identity.device, "d_1", identity.device_n = 3);
    (void)tl_settings_set_text(&settings, TL_SETTING_SSID, tl_text("Yard"));
    (void)tl_settings_set_text(&settings, TL_SETTING_NAME, tl_text("Pump"));
    tunnel.state = TL_TUNNEL_DIALLING;
    messages.state = TL_MESSAGES_UP;
    messages.outbox.count = 7;
    calls()->facts(&panel, &f);
    CHECK(tl_is(f.device, "d_1") && tl_is(f.name, "Pump") && tl_is(f.ssid, "Yard") && f.rssi == -61 && f.address.n == 0);
    CHECK(tl_is(f.tunnel, "connecting") && tl_is(f.messages, "up") && tl_is(f.reset_reason, "brownout"));
    CHECK(f.time_s == 1800000000 && f.outbox == 7);
}

static void sensors_and_lines(void)
{
    begun();
    tl_ui_sensor s;
    CHECK(!calls()->sensor(&panel, 0, &s));
    CHECK(tl_telemetry_add(&messages.telemetry, "heat", 2150, 2, 0));
    CHECK(calls()->sensor(&panel, 0, &s) && tl_is(s.name, "heat") && s.value == 2150 && s.decimals == 2);
    CHECK(!calls()->sensor(&panel, 1, &s));
    tl_ui_line l;
    const char *pin = strstr(m.console, ": ");
    CHECK(pin != NULL && strlen(pin) == 2 + TL_PIN_DIGITS);
    CHECK(!calls()->line(&panel, 0, &l)); /* the PIN is not for whoever reads the log */
    tl_log(&ring, TL_LOG_WARNING, "over", (tl_span){NULL, 0});
    CHECK(calls()->line(&panel, 0, &l) && l.level == 'W' && l.number == 1 && l.at_ms == 61000 && tl_is(l.text, "over"));
    CHECK(!calls()->line(&panel, 1, &l));
}

static void the_pin_stays(void)
{
    begun();
    char pin[20];
    unsigned place;
    strcpy(pin, strstr(m.console, ": ") + 2);
    CHECK(tl_login_try(&panel.login, tl_text(pin), 1, &place) == 0);
    started();
    CHECK(m.console[0] == '\0' && tl_login_try(&panel.login, tl_text(pin), 1, &place) == 0);
    nvs_init(&store);
    store.fail_at = 1;
    started();
    CHECK(m.console[0] == '\0'); /* one that is not kept is told to nobody */
}

static void what_changes(void)
{
    begun();
    tl_ui_settings to = {.name = tl_text("Pump"), .ssid = tl_text("Yard"), .password = tl_text("12345678"),
                         .gateway = tl_text("https://gateway.test"), .token = tl_text("t"), .support = 0};
    CHECK(calls()->change(&panel, &to) == NULL);
    started();
    CHECK(strcmp(settings.name, "Pump") == 0 && strcmp(settings.ssid, "Yard") == 0 && strcmp(settings.password, "12345678") == 0);
    CHECK(strcmp(settings.gateway, "https://gateway.test") == 0 && strcmp(settings.token, "t") == 0 && settings.support == 0);
    tl_ui_settings shown;
    calls()->settings(&panel, &shown);
    CHECK(tl_is(shown.name, "Pump") && shown.has_password && shown.password.n == 0 && shown.token.n == 0 && shown.support == 0);
    const tl_ui_settings bad[] = {
        {.name = tl_text("123456789012345678901234567890123"), .support = TL_UI_UNKNOWN},
        {.ssid = tl_text("a\n"), .support = TL_UI_UNKNOWN},
        {.password = tl_text("1234567"), .support = TL_UI_UNKNOWN},
        {.gateway = tl_text("http://gateway.test"), .support = TL_UI_UNKNOWN},
        {.gateway = tl_text("wss://gateway.test"), .support = TL_UI_UNKNOWN},
        {.token = tl_text("\x01"), .support = TL_UI_UNKNOWN},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        tl_ui_settings one = bad[i];
        const char *why = calls()->change(&panel, &one);
        CHECK(why != NULL && strlen(why) <= TL_WHY_MAX && strcmp(settings.name, "Pump") == 0 && panel.work == 0);
    }
    const tl_ui_settings half = {.name = tl_text("Other"), .gateway = tl_text("x"), .support = 1};
    CHECK(calls()->change(&panel, &half) != NULL && strcmp(settings.name, "Pump") == 0 && settings.support == 0);
    store.fail_at = store.steps + 1;
    const tl_ui_settings other = {.name = tl_text("Other"), .support = TL_UI_UNKNOWN};
    CHECK(calls()->change(&panel, &other) != NULL && strcmp(settings.name, "Pump") == 0);
}

static void what_is_done_later(void)
{
    static const struct {
        tl_ui_settings to;
        unsigned work;
    } cases[] = {
        {{.name = {(const uint8_t *)"a", 1}, .support = TL_UI_UNKNOWN}, TL_DO_DEVICE},
        {{.support = 1}, TL_DO_DEVICE},
        {{.ssid = {(const uint8_t *)"a", 1}, .support = TL_UI_UNKNOWN}, TL_DO_NETWORK},
        {{.password = {(const uint8_t *)"", 0}, .support = TL_UI_UNKNOWN}, TL_DO_NETWORK},
        {{.gateway = {(const uint8_t *)"", 0}, .support = TL_UI_UNKNOWN}, TL_DO_CLOUD},
        {{.token = {(const uint8_t *)"t", 1}, .support = TL_UI_UNKNOWN}, TL_DO_CLOUD},
    };
    begun();
    CHECK(tl_panel_timer(&panel) == UINT64_MAX);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        m.work = m.works = 0;
        CHECK(calls()->change(&panel, &cases[i].to) == NULL);
        const uint64_t due_ms = panel.ui.now_ms + TL_PANEL_DELAY_MS;
        CHECK(tl_panel_timer(&panel) == due_ms);
        (void)tl_panel_run(&panel, due_ms - 1);
        CHECK(m.works == 0);
        (void)tl_panel_run(&panel, due_ms);
        CHECK(m.works == 1 && m.work == cases[i].work && tl_panel_timer(&panel) == UINT64_MAX);
    }
    calls()->restart(&panel);
    calls()->reset(&panel);
    (void)tl_panel_run(&panel, panel.ui.now_ms + TL_PANEL_DELAY_MS);
    CHECK(m.works == 2 && m.work == (TL_DO_CLOUD | TL_DO_RESTART | TL_DO_RESET));
    (void)tl_panel_run(&panel, panel.ui.now_ms + TL_PANEL_DELAY_MS);
    CHECK(m.works == 2);
}

/* Whoever goes on changing settings must not keep the owner from a reset. */
static void nobody_puts_it_off_for_ever(void)
{
    const tl_ui_settings name = {.name = tl_text("Pump"), .support = TL_UI_UNKNOWN};
    begun();
    m.work = m.works = 0;
    calls()->reset(&panel);
    const uint64_t asked_ms = panel.ui.now_ms;
    while (m.works == 0 && panel.ui.now_ms < asked_ms + 2 * TL_PANEL_DELAY_MAX_MS) {
        CHECK(calls()->change(&panel, &name) == NULL);
        (void)tl_panel_run(&panel, panel.ui.now_ms + TL_PANEL_DELAY_MS / 2);
    }
    CHECK(m.works == 1 && (m.work & TL_DO_RESET) != 0 && panel.ui.now_ms <= asked_ms + TL_PANEL_DELAY_MAX_MS);
}

static bool on_trial(void *with)
{
    (void)with;
    return false;
}

static void images_are_the_updates(void)
{
    static const tl_firmware runs = {.hardware = "esp32"};
    static const tl_port_ota slots_of_code = {.largest = 1000, .on_trial = on_trial};
    uint8_t rubbish[TL_IMAGE_HEAD] = {0};
    tl_ui_facts f;
    begun();
    calls()->facts(&panel, &f);
    CHECK(calls()->image_begin(&panel, 500, false) != NULL && f.firmware.n == 0 && f.received == TL_UI_UNKNOWN);
    images = &ota;
    tl_ota_open(&ota, &(tl_ota_means){&slots_of_code, &store.port, &TOY_CRYPTO, &runs, 1000, 1000});
    begun();
    calls()->facts(&panel, &f);
    CHECK(tl_is(f.firmware, "idle") && f.received == 0);
    CHECK(calls()->image_begin(&panel, 5000, false) != NULL && calls()->image_begin(&panel, 500, true) == NULL && ota.force);
    CHECK(calls()->image_add(&panel, (tl_span){rubbish, 100}) == NULL);
    calls()->facts(&panel, &f);
    CHECK(tl_is(f.firmware, "receiving") && f.received == 100);
    calls()->image_drop(&panel);
    CHECK(calls()->image_begin(&panel, 500, false) == NULL && calls()->image_add(&panel, (tl_span){rubbish, sizeof rubbish}) != NULL);
    CHECK(calls()->image_begin(&panel, 500, false) == NULL && calls()->image_end(&panel) != NULL && panel.work == 0);
    images = NULL;
}

int main(void)
{
    static const check_test tests[] = {CHECK_TEST(what_is_told), CHECK_TEST(sensors_and_lines), CHECK_TEST(the_pin_stays),
                                       CHECK_TEST(what_changes), CHECK_TEST(what_is_done_later),
                                       CHECK_TEST(nobody_puts_it_off_for_ever),
                                       CHECK_TEST(images_are_the_updates)};
    return CHECK_ALL(tests);
}
