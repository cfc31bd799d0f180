#include "towline/panel.h"
#include "towline/provisioning.h"

#include <string.h>

/* --- facts --- */

static int64_t known(bool is, int64_t value)
{
    return is ? value : TL_UI_UNKNOWN;
}

static tl_span link_word(bool up, bool off)
{
    return tl_text(up ? "up" : off ? "off" : "connecting");
}

static tl_span address_of(tl_panel *panel)
{
    const tl_port_network *network = panel->parts.port->network;
    tl_out out = {panel->address, 0, sizeof panel->address, false};
    return network->name(network->with, 0, &out) && !out.full ? (tl_span){out.at, out.n} : (tl_span){NULL, 0};
}

static void facts(void *device, tl_ui_facts *f)
{
    static const char *const reasons[] = {"power", "asked", "crash", "watchdog", "brownout"};
    tl_panel *panel = device;
    const tl_panel_parts *p = &panel->parts;
    const tl_port_sys *sys = p->port->sys;
    const int64_t wall_s = sys->wall_s(sys->with);
    int8_t rssi;
    tl_memory memory;
    sys->memory(sys->with, &memory);
    const bool wifi = p->port->network->rssi(p->port->network->with, &rssi);
    *f = (tl_ui_facts){
        .device = tl_identity_device(p->identity),
        .name = tl_text(p->settings->name),
        .hardware = tl_text(p->hardware),
        .version = tl_text(p->version),
        .reset_reason = tl_text(reasons[sys->reset_reason(sys->with)]),
        .firmware = tl_text(p->ota != NULL ? tl_ota_name(p->ota) : NULL),
        .ssid = wifi ? tl_text(p->settings->ssid) : (tl_span){NULL, 0},
        .address = address_of(panel),
        .tunnel = link_word(p->tunnel->state == TL_TUNNEL_UP, p->tunnel->state == TL_TUNNEL_OFF),
        .messages = link_word(p->messages->state == TL_MESSAGES_UP, p->messages->state == TL_MESSAGES_OFF),
        .uptime_s = (int64_t)(sys->now_ms(sys->with) / 1000),
        .time_s = known(wall_s >= 0, wall_s),
        .rssi = known(wifi, wifi ? rssi : 0),
        .memory_free = known(memory.available != UINT32_MAX, memory.available),
        .memory_least = known(memory.least != UINT32_MAX, memory.least),
        .memory_block = known(memory.largest != UINT32_MAX, memory.largest),
        .outbox = p->messages->outbox.count,
        .streams = tl_tunnel_open_streams(p->tunnel),
        .received = known(p->ota != NULL, p->ota != NULL ? p->ota->received : 0),
    };
}

static bool sensor(void *device, unsigned index, tl_ui_sensor *s)
{
    const tl_telemetry *telemetry = &((const tl_panel *)device)->parts.messages->telemetry;
    if (index >= telemetry->count) {
        return false;
    }
    const tl_reading *r = &telemetry->readings[index];
    *s = (tl_ui_sensor){tl_text(r->name), r->last, r->decimals};
    return true;
}

static bool line(void *device, uint32_t after, tl_ui_line *l)
{
    static const char letters[] = "EWID";
    tl_log_line found;
    if (!tl_log_after(((const tl_panel *)device)->parts.log, after, &found)) {
        return false;
    }
    *l = (tl_ui_line){found.number, found.at_ms, letters[found.level], found.text};
    return true;
}

/* --- settings --- */

static void settings(void *device, tl_ui_settings *into)
{
    const tl_settings *s = ((const tl_panel *)device)->parts.settings;
    *into = (tl_ui_settings){
        .name = tl_text(s->name),
        .ssid = tl_text(s->ssid),
        .gateway = tl_text(s->gateway),
        .support = s->support,
        .has_password = s->password[0] != '\0',
    };
}

static void later(tl_panel *panel, unsigned what)
{
    const uint64_t now_ms = panel->ui.now_ms;
    if (panel->work == 0) {
        panel->work_by_ms = now_ms + TL_PANEL_DELAY_MAX_MS;
    }
    panel->work |= what;
    panel->work_at_ms = now_ms + TL_PANEL_DELAY_MS;
    if (panel->work_at_ms > panel->work_by_ms) {
        panel->work_at_ms = panel->work_by_ms;
    }
}

#define WPA_PASSWORD_LEAST 8u

static bool is_gateway(tl_span text)
{
    tl_url url;
    return text.n == 0 || tl_url_read(text, TL_URL_GATEWAY, &url) == NULL;
}

static const char *taken(tl_settings *next, const tl_ui_settings *changes, unsigned *what)
{
    const struct {
        const tl_span *text;
        tl_setting setting;
        unsigned what;
        const char *why;
    } texts[] = {
        {&changes->name, TL_SETTING_NAME, TL_DO_DEVICE, "A name has at most 32 characters."},
        {&changes->ssid, TL_SETTING_SSID, TL_DO_NETWORK, "A network's name has at most 32 characters."},
        {&changes->password, TL_SETTING_PASSWORD, TL_DO_NETWORK, "A Wi-Fi password has 8 to 63 characters."},
        {&changes->gateway, TL_SETTING_GATEWAY, TL_DO_CLOUD, "The gateway's address begins with https://."},
        {&changes->token, TL_SETTING_TOKEN, TL_DO_CLOUD, "That is no registration token."},
    };
    if ((changes->password.n > 0 && changes->password.n < WPA_PASSWORD_LEAST)) {
        return texts[2].why;
    }
    if (!is_gateway(changes->gateway)) {
        return texts[3].why;
    }
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (texts[i].text->at != NULL) {
            *what |= texts[i].what;
            if (tl_settings_set_text(next, texts[i].setting, *texts[i].text) != NULL) {
                return texts[i].why;
            }
        }
    }
    if (changes->support != TL_UI_UNKNOWN) {
        *what |= TL_DO_DEVICE;
        (void)tl_settings_set_number(next, TL_SETTING_SUPPORT, changes->support);
    }
    return NULL;
}

static const char *change(void *device, const tl_ui_settings *changes)
{
    tl_panel *panel = device;
    tl_settings next = *panel->parts.settings;
    unsigned what = 0;
    const char *why = taken(&next, changes, &what);
    if (why != NULL) {
        return why;
    }
    if (!tl_settings_commit(panel->parts.store, &next)) {
        return "The device could not keep them. Try again.";
    }
    *panel->parts.settings = next;
    later(panel, what);
    return NULL;
}

/* --- an image --- */

static tl_ota *ota_of(void *device)
{
    return ((const tl_panel *)device)->parts.ota;
}

static const char *image_begin(void *device, uint64_t size, bool force)
{
    return ota_of(device) != NULL ? tl_ota_begin(ota_of(device), size, force) : "This device takes no images.";
}

static const char *image_add(void *device, tl_span piece)
{
    return tl_ota_add(ota_of(device), piece);
}

static const char *image_end(void *device)
{
    const char *why = tl_ota_end(ota_of(device));
    if (why == NULL) {
        later(device, TL_DO_RESTART);
    }
    return why;
}

static void image_drop(void *device)
{
    tl_ota_drop(ota_of(device));
}

/* --- what ends this run --- */

static void restart(void *device)
{
    later(device, TL_DO_RESTART);
}

static void reset(void *device)
{
    later(device, TL_DO_RESET);
}

static const tl_ui_device CALLS = {
    .facts = facts,
    .sensor = sensor,
    .line = line,
    .settings = settings,
    .change = change,
    .image_begin = image_begin,
    .image_add = image_add,
    .image_end = image_end,
    .image_drop = image_drop,
    .restart = restart,
    .reset = reset,
};

/* --- the PIN --- */

static void tell_pin(tl_panel *panel, const char *pin)
{
    const tl_port_sys *sys = panel->parts.port->sys;
    uint8_t text[48];
    tl_out out = {text, 0, sizeof text, false};
    tl_put_text(&out, "PIN of the page on this network: ");
    tl_put_text(&out, pin);
    sys->log(sys->with, TL_LOG_INFO, (tl_span){text, out.n}); /* not the ring: a support session reads that */
}

/* It survives a factory reset where the port's reset leaves it; else the next start makes another. */
static void open_login(tl_panel *panel)
{
    const tl_port_kv *kv = panel->parts.port->kv;
    uint8_t record[TL_LOGIN_RECORD];
    char pin[TL_PIN_DIGITS + 1];
    tl_out out = {record, 0, sizeof record, false};
    const bool kept = kv->get(kv->with, TL_PIN_KEY, &out) && out.n == sizeof record;
    tl_login_init(&panel->login, panel->parts.port->crypto, kept ? record : NULL);
    if (kept) {
        return;
    }
    tl_login_new_pin(&panel->login, pin);
    if (kv->set(kv->with, TL_PIN_KEY, (tl_span){panel->login.record, TL_LOGIN_RECORD}) &&
        tl_provisioning_new_pin(panel->parts.port, tl_text(pin)) && kv->commit(kv->with)) {
        tell_pin(panel, pin);
    }
}

/* --- the loop --- */

void tl_panel_init(tl_panel *panel, const tl_panel_parts *parts)
{
    memset(panel, 0, sizeof *panel);
    panel->parts = *parts;
    open_login(panel);
    tl_ui_init(&panel->ui, &CALLS, panel, &panel->login, parts->tunnel->parts.max_streams);
}

bool tl_panel_run(tl_panel *panel, uint64_t now_ms)
{
    const bool due = tl_ui_tick(&panel->ui, now_ms);
    if (panel->work != 0 && now_ms >= panel->work_at_ms) {
        const unsigned what = panel->work;
        panel->work = 0;
        panel->parts.work(panel->parts.device, what);
    }
    return due;
}

uint64_t tl_panel_timer(const tl_panel *panel)
{
    const uint64_t live_ms = tl_ui_timer(&panel->ui);
    return panel->work != 0 && panel->work_at_ms < live_ms ? panel->work_at_ms : live_ms;
}
