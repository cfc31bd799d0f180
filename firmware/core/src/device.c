#include "device_parts.h"

#include <string.h>

#include "towline/bytes.h"

#define TL_SERVICE_ID 6u /* of the hardware id's end: what tells one device from its neighbour */
#define TL_SERVICE_NAME_MAX (8u + TL_SERVICE_ID)

/* --- memory: the device, then what its streams need --- */

static size_t aligned(size_t n)
{
    return (n + _Alignof(max_align_t) - 1) / _Alignof(max_align_t) * _Alignof(max_align_t);
}

static size_t streams_at(void)
{
    return aligned(sizeof(tl_device));
}

static size_t lines_at(const tl_config *config)
{
    return streams_at() + aligned(config->max_streams * sizeof(tl_stream));
}

static size_t rings_at(const tl_config *config)
{
    return lines_at(config) + aligned(config->max_streams * sizeof(tl_line));
}

size_t tl_device_size(const tl_config *config)
{
    return rings_at(config) + config->max_streams * TL_STREAM_WINDOW;
}

/* --- begin --- */

static void write_software(tl_device *d)
{
    tl_out out = {(uint8_t *)d->software, 0, sizeof d->software - 1, false};
    tl_put_text(&out, "towline-firmware/");
    tl_put_text(&out, d->config->version);
    d->software[out.n] = '\0';
}

static void init_tunnel(tl_device *d)
{
    uint8_t *memory = (uint8_t *)d;
    const tl_tunnel_parts parts = {
        .port = d->port,
        .log = &d->log,
        .routes = TL_UI_ROUTES,
        .routes_owner = &d->panel.ui,
        .software = tl_text(d->software),
        .max_streams = d->config->max_streams,
        .keepalive_ms = d->settings.keepalive_s * 1000u,
        .streams = (tl_stream *)(void *)(memory + streams_at()),
        .lines = (tl_line *)(void *)(memory + lines_at(d->config)),
        .rings = memory + rings_at(d->config),
        .small = d->small_for_tunnel,
        .scratch = &d->scratch,
    };
    tl_tunnel_init(&d->tunnel, &parts);
}

static void network_again(tl_device *d)
{
    const tl_port_network *network = d->port->network;
    if (!network->apply(network->with, tl_text(d->settings.ssid), tl_text(d->settings.password))) {
        tl_log_text(&d->log, TL_LOG_WARNING, "the network settings were not taken", NULL);
    }
}

static void forget_all(tl_device *d)
{
    const tl_port_kv *kv = d->port->kv;
    const tl_port_flash *flash = d->port->flash;
    tl_device_stop(d); /* first: nothing may be kept behind it */
    bool fine = kv->erase_all(kv->with);
    for (uint32_t at = 0; at < flash->size; at += TL_FLASH_SECTOR) {
        fine = flash->erase(flash->with, at) && fine;
    }
    if (!fine) {
        tl_log_text(&d->log, TL_LOG_ERROR, "not all could be erased", NULL);
    }
}

/* What the page asked for. */
static void work(void *device, unsigned what)
{
    tl_device *d = device;
    if (what & TL_DO_RESET) {
        forget_all(d);
    }
    if (what & (TL_DO_RESET | TL_DO_RESTART)) {
        d->port->sys->reboot(d->port->sys->with);
        return;
    }
    if (what & TL_DO_NETWORK) {
        network_again(d);
    }
    if ((what & TL_DO_CLOUD) && !d->identity.enrolled) {
        tl_device_cloud_begin(d);
    }
    tl_device_apply_settings(d);
}

/* --- new firmware --- */

static void open_ota(tl_device *d)
{
    const tl_config *config = d->config;
    if (config->firmware == NULL) {
        return;
    }
    const tl_ota_means means = {
        d->port->ota, d->port->kv, d->port->crypto, config->firmware, config->steady_ms, config->patience_ms,
    };
    tl_ota_open(&d->ota, &means);
    tl_log_text(&d->log, TL_LOG_INFO, "last update", tl_ota_name(&d->ota));
}

/* Whether this firmware reached what it is there for: without an identity that is its page. */
static bool reaches_all(const tl_device *d)
{
    return !d->identity.enrolled || d->tunnel.state == TL_TUNNEL_UP ||
           d->messages.state == TL_MESSAGES_UP;
}

static uint64_t run_ota(tl_device *d)
{
    return d->config->firmware != NULL ? tl_ota_run(&d->ota, tl_device_now(d), reaches_all(d)) : UINT64_MAX;
}

static void init_page(tl_device *d)
{
    const tl_panel_parts parts = {
        .port = d->port,
        .log = &d->log,
        .identity = &d->identity,
        .tunnel = &d->tunnel,
        .messages = &d->messages,
        .settings = &d->settings,
        .store = &d->store,
        .hardware = d->config->hardware,
        .version = d->config->version,
        .work = work,
        .device = d,
        .ota = d->config->firmware != NULL ? &d->ota : NULL,
    };
    tl_panel_init(&d->panel, &parts);
    tl_lan_init(&d->lan, d->port, TL_UI_ROUTES, &d->panel.ui, &d->panel.login, d->small_for_lan);
}

/* --- a device that belongs to nobody --- */

static void provisioned(void *device, bool wifi, bool gateway)
{
    work(device, (wifi ? TL_DO_NETWORK : 0u) | (gateway ? TL_DO_CLOUD : 0u));
}

static void open_provisioning(tl_device *d)
{
    const tl_provisioning_parts parts = {
        .port = d->port, .settings = &d->settings, .store = &d->store, .changed = provisioned, .device = d};
    tl_span id = d->config->hardware_id;
    uint8_t room[TL_SERVICE_NAME_MAX];
    tl_out name = {room, 0, sizeof room, false};
    tl_put_text(&name, "Towline-");
    if (id.n > TL_SERVICE_ID) {
        (void)tl_take(&id, id.n - TL_SERVICE_ID);
    }
    tl_put_span(&name, id);
    tl_provisioning_open(&d->provisioning, &parts, (tl_span){room, name.n}, tl_device_now(d));
    if (d->provisioning.open) {
        tl_log(&d->log, TL_LOG_INFO, "to be set up by a phone", (tl_span){room, name.n});
    }
}

static tl_device *broken(tl_device *d, const char *what)
{
    tl_log_text(&d->log, TL_LOG_ERROR, what, NULL);
    return NULL;
}

tl_device *tl_device_init(void *memory, const tl_config *config, const tl_port *port)
{
    tl_device *d = memory;
    memset(d, 0, streams_at());
    d->config = config;
    d->port = port;
    write_software(d);
    tl_log_init(&d->log, port->sys, TL_LOG_INFO);
    if (!tl_settings_load(&d->store, port->kv, &d->settings)) {
        tl_log_text(&d->log, TL_LOG_INFO, "no settings are kept: it runs with the defaults", NULL);
    }
    open_ota(d);
    init_tunnel(d);
    init_page(d);
    if (!tl_device_cloud_init(d)) {
        return broken(d, "no key can be kept");
    }
    tl_device_apply_settings(d);
    if (!port->web->start(port->web->with)) {
        return broken(d, "the web server cannot listen");
    }
    if (!d->identity.enrolled) {
        open_provisioning(d);
    }
    network_again(d);
    tl_device_cloud_begin(d);
    tl_log(&d->log, TL_LOG_INFO, "started", tl_text(d->software));
    return d;
}

/* --- events --- */

/* A live answer that is due is asked again wherever it goes. */
static void run_page(tl_device *d)
{
    if (tl_panel_run(&d->panel, tl_device_now(d))) {
        tl_tunnel_wake(&d->tunnel);
        tl_lan_wake(&d->lan);
    }
}

void tl_device_event(tl_device *d, const tl_event *event)
{
    run_page(d);
    switch (event->kind) {
    case TL_EVENT_NETWORK_UP:
    case TL_EVENT_NETWORK_DOWN:
        tl_log_text(&d->log, TL_LOG_INFO, event->kind == TL_EVENT_NETWORK_UP ? "network up" : "network down", NULL);
        tl_tunnel_event(&d->tunnel, event);
        tl_messages_event(&d->messages, event);
        tl_provisioning_event(&d->provisioning, event, tl_device_now(d));
        break;
    case TL_EVENT_PROVISIONING_REQUEST:
    case TL_EVENT_PROVISIONING_OVER:
        tl_provisioning_event(&d->provisioning, event, tl_device_now(d));
        break;
    case TL_EVENT_LINK_OPENED:
    case TL_EVENT_LINK_MESSAGE:
    case TL_EVENT_LINK_WRITABLE:
    case TL_EVENT_LINK_CLOSED:
        tl_tunnel_event(&d->tunnel, event);
        break;
    case TL_EVENT_MQTT_CONNECTED:
    case TL_EVENT_MQTT_MESSAGE:
    case TL_EVENT_MQTT_TAKEN:
    case TL_EVENT_MQTT_LOST:
        tl_messages_event(&d->messages, event);
        break;
    case TL_EVENT_FETCH_HEAD:
    case TL_EVENT_FETCH_DATA:
    case TL_EVENT_FETCH_END:
    case TL_EVENT_FETCH_FAILED:
        if (!tl_updater_event(&d->updater, event) && !tl_gateway_event(&d->gateway, event) &&
            event->kind == TL_EVENT_FETCH_DATA) {
            d->port->fetch->release(d->port->fetch->with, event->bytes);
        }
        break;
    case TL_EVENT_WEB_REQUEST:
    case TL_EVENT_WEB_BODY:
    case TL_EVENT_WEB_BODY_OVER:
    case TL_EVENT_WEB_ROOM:
    case TL_EVENT_WEB_GONE:
        tl_lan_event(&d->lan, event);
        break;
    default:
        break;
    }
}

/* --- time --- */

uint32_t tl_device_run(tl_device *d)
{
    run_page(d);
    const uint64_t set_up = tl_provisioning_run(&d->provisioning, tl_device_now(d));
    const uint64_t soon = tl_earlier(tl_earlier(tl_device_cloud_run(d), run_ota(d)), set_up);
    const uint64_t next = tl_earlier(soon, tl_panel_timer(&d->panel));
    const uint64_t now_ms = tl_device_now(d);
    if (next <= now_ms) {
        return 0;
    }
    return next - now_ms < UINT32_MAX ? (uint32_t)(next - now_ms) : UINT32_MAX;
}

bool tl_device_measured(tl_device *d, const char *name, int32_t value, uint8_t decimals)
{
    return tl_messages_measured(&d->messages, name, value, decimals);
}

bool tl_device_sensor(tl_device *d, const char *name, tl_span value)
{
    return tl_sensors_set(&d->messages.sensors, name, value);
}

bool tl_device_happened(tl_device *d, const char *type, tl_span payload)
{
    return tl_messages_say(&d->messages, TL_KIND_EVENT, type, payload);
}
