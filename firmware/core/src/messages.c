#include "messages_parts.h"

#include <string.h>

#include "towline/bytes.h"

uint64_t tl_messages_now(const tl_messages *m)
{
    const tl_port_sys *sys = m->parts.port->sys;
    return sys->now_ms(sys->with);
}

int64_t tl_messages_wall_ms(const tl_messages *m)
{
    const tl_port_sys *sys = m->parts.port->sys;
    const int64_t wall_s = sys->wall_s(sys->with);
    return wall_s < 0 ? -1 : wall_s * 1000;
}

uint32_t tl_messages_random(const tl_messages *m)
{
    uint8_t bytes[4];
    m->parts.port->crypto->random(bytes, sizeof bytes);
    return tl_u32(bytes);
}

tl_out tl_messages_head(tl_messages *m, const char *type, int64_t ts_ms, size_t cap)
{
    tl_envelope envelope = {.type = type, .ts_ms = ts_ms, .up_ms = tl_messages_now(m)};
    tl_out out = {m->text, 0, cap, false};
    m->parts.port->crypto->random(envelope.random, sizeof envelope.random);
    tl_envelope_put_head(&out, &envelope);
    return out;
}

tl_outbox_report tl_messages_outbox(const tl_messages *m)
{
    const tl_outbox *o = &m->outbox;
    return (tl_outbox_report){o->count, o->bytes, o->dropped, o->refused};
}

bool tl_messages_open(tl_messages *m, const tl_messages_parts *parts)
{
    const tl_port *port = parts->port;
    uint8_t random[12];
    memset(m, 0, sizeof *m);
    m->parts = *parts;
    m->may_dial = true;
    m->report_s = TL_READINGS_EVERY_S;
    port->crypto->random(random, sizeof random);
    tl_out instance = {(uint8_t *)m->instance, 0, sizeof m->instance - 1, false};
    tl_put_hex(&instance, (tl_span){random, sizeof random});
    tl_sending_init(&m->sending);
    tl_ledger_open(&m->ledger, port->kv);
    tl_commands_open(&m->commands, &m->ledger, port->sys, parts->work, parts->device);
    tl_configuration_open(&m->configuration, port->kv);
    parts->configured(parts->device, &m->configuration.running);
    return tl_outbox_open(&m->outbox, port->flash, parts->first_sector, parts->sectors, port->kv);
}

/* --- what is kept --- */

/* What stands in the buffer behind a head of `split` bytes. */
static bool keep(tl_messages *m, tl_kind kind, const tl_out *out, size_t split)
{
    return !out->full && tl_outbox_store(&m->outbox, kind, (tl_span){out->at, out->n}, split);
}

bool tl_messages_say(tl_messages *m, tl_kind kind, const char *type, tl_span payload)
{
    tl_out out = tl_messages_head(m, type, tl_messages_wall_ms(m), TL_ENTRY_MAX);
    const size_t split = out.n;
    tl_put_span(&out, payload);
    return keep(m, kind, &out, split);
}

bool tl_messages_measured(tl_messages *m, const char *name, int32_t value, uint8_t decimals)
{
    return tl_telemetry_add(&m->telemetry, name, value, decimals, tl_messages_wall_ms(m));
}

/* As many reports as it takes: an entry holds some twelve readings. */
static void say_readings(tl_messages *m)
{
    const int64_t wall_ms = tl_messages_wall_ms(m);
    do {
        tl_out out = tl_messages_head(m, tl_kind_name(TL_KIND_TELEMETRY), wall_ms, TL_ENTRY_MAX);
        const size_t split = out.n;
        if (!tl_telemetry_report(&m->telemetry, wall_ms, &m->readings_from, &out) ||
            !keep(m, TL_KIND_TELEMETRY, &out, split)) {
            m->readings_from = 0;
        }
    } while (m->readings_from != 0);
}

static void put_memory(tl_messages *m, tl_json_writer *w)
{
    const tl_port_sys *sys = m->parts.port->sys;
    tl_memory memory;
    sys->memory(sys->with, &memory);
    tl_json_put_name(w, "memory");
    tl_json_open(w, '{');
    tl_json_put_member(w, "available", memory.available);
    tl_json_put_member(w, "min", memory.least);
    tl_json_put_member(w, "largest", memory.largest);
    tl_json_close(w, '}');
}

static bool say_health(tl_messages *m, uint64_t now_ms)
{
    const tl_port_network *network = m->parts.port->network;
    const tl_outbox_report report = tl_messages_outbox(m);
    tl_out out = tl_messages_head(m, tl_kind_name(TL_KIND_HEARTBEAT), tl_messages_wall_ms(m), TL_ENTRY_MAX);
    const size_t split = out.n;
    tl_json_writer w = tl_json_to(&out);
    int8_t rssi;
    tl_json_open(&w, '{');
    tl_json_put_member(&w, "uptime_s", (int64_t)(now_ms / 1000));
    put_memory(m, &w);
    if (network->rssi(network->with, &rssi)) {
        tl_json_put_member(&w, "rssi", rssi);
    }
    tl_put_outbox_report(&w, &report);
    if (m->sensors.n > 0) {
        tl_json_put_name(&w, "sensors");
        tl_json_open(&w, '{');
        tl_json_put_raw(&w, (tl_span){m->sensors.text, m->sensors.n});
        tl_json_close(&w, '}');
    }
    tl_json_close(&w, '}');
    return keep(m, TL_KIND_HEARTBEAT, &out, split);
}

static void say_configuration(tl_messages *m)
{
    tl_out out = tl_messages_head(m, "config", tl_messages_wall_ms(m), TL_ENTRY_MAX);
    const size_t split = out.n;
    tl_configuration_report(&m->configuration, &out);
    m->configuration.owes_report = !keep(m, TL_KIND_STATE, &out, split);
}

/* --- what is due --- */

static uint64_t earlier(uint64_t one, uint64_t other)
{
    return one < other ? one : other;
}

/* Reports in their time, also while there is no connection: the outbox keeps them. */
static uint64_t report(tl_messages *m, uint64_t now_ms)
{
    const tl_config_values *running = &m->configuration.running;
    const uint64_t health_ms = 1000u * (running->health_every_s != 0 ? running->health_every_s : TL_HEALTH_EVERY_S);
    const uint64_t readings_ms = 1000u * (running->report_s != 0 ? running->report_s : m->report_s);
    if (now_ms >= m->health_at) {
        m->health_at = now_ms + health_ms;
        if (say_health(m, now_ms)) {
            m->sensors.n = 0; /* each is told once */
        }
    }
    if (now_ms >= m->readings_at) {
        if (m->readings_at != 0) { /* the first has a whole time behind it */
            say_readings(m);
        }
        m->readings_at = now_ms + readings_ms;
    }
    if (m->configuration.owes_report) {
        say_configuration(m);
    }
    return earlier(m->health_at, m->readings_at);
}

uint64_t tl_messages_run(tl_messages *m)
{
    const uint64_t now_ms = tl_messages_now(m);
    if (tl_configuration_run(&m->configuration, now_ms)) {
        m->health_at = m->readings_at = 0;
        tl_log(m->parts.log, TL_LOG_INFO, "runs with another configuration", (tl_span){0});
        m->parts.configured(m->parts.device, &m->configuration.running);
    }
    uint64_t due = tl_commands_run(&m->commands, now_ms);
    due = earlier(due, tl_configuration_due(&m->configuration));
    if (m->outbox.counting) {
        due = earlier(due, report(m, now_ms));
    }
    return earlier(due, tl_session_run(m, now_ms));
}
